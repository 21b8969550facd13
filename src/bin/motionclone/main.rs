//! The command line.

mod args;
mod cache;
mod commands;
mod doctor;
mod output;
mod published;
mod sheet;
mod terminal;
#[cfg(test)]
mod testing;
mod work;

use std::process::ExitCode;

use clap::Parser;
use motionclone::Cancel;
use motionclone::{Error, Result};

use args::{Command, CommandLine};
use terminal::Terminal;
use work::Work;

/// The input was wrong.
const WRONG_INPUT: u8 = 2;
/// Ended by Ctrl-C, as shells count it.
const CANCELLED: u8 = 130;

fn main() -> ExitCode {
    let command = CommandLine::parse_from(args::dashed(std::env::args_os())).command;
    let cancel = Cancel::default();
    let mut work = Work { terminal: Terminal::new(), cancel: cancel.clone() };
    let listening = ctrlc::set_handler(move || cancel.cancel())
        .map_err(|e| Error::failure(format!("Ctrl-C cannot be handled: {e}")));
    let result = listening.and_then(|()| perform(command, &mut work));
    work.terminal.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_cancelled() || work.cancel.is_cancelled() => {
            eprintln!("cancelled");
            CANCELLED.into()
        }
        Err(error) => {
            eprintln!("error: {error}");
            if error.is_input() { WRONG_INPUT.into() } else { ExitCode::FAILURE }
        }
    }
}

fn perform(command: Command, work: &mut Work) -> Result<()> {
    match command {
        Command::Import(args) => commands::import(args, work),
        Command::Clone(args) => commands::clone(*args, work),
        Command::Extract(args) => commands::extract(args, work),
        Command::Run(args) => commands::run(args, work),
        Command::Export(args) => commands::export(&args, work),
        Command::Doctor(args) => doctor::doctor(&args),
    }
}
