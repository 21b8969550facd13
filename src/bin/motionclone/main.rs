//! The command line.

mod args;
mod cache;
mod commands;
mod doctor;
mod flags;
mod list;
mod memory;
mod output;
mod places;
mod published;
mod sheet;
mod signals;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use motionclone::Cancel;
use motionclone::{Error, Result};

use args::{Command, CommandLine};
use terminal::{ProgressFormat, Terminal};
use work::Work;

/// The input was wrong.
const WRONG_INPUT: u8 = 2;
/// Ended by Ctrl-C, as shells count it.
const CANCELLED: u8 = 130;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = args::dashed(std::env::args_os()).collect();
    let command = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line.command,
        Err(error) => return refuse(&arguments, &error),
    };
    let cancel = Cancel::default();
    let mut work = Work { terminal: Terminal::new(command.progress()), cancel: cancel.clone() };
    work.terminal.started(command.name());
    let result = signals::on_termination(move || cancel.cancel()).and_then(|()| perform(command, &mut work));
    match result {
        Ok(()) => {
            work.terminal.done();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let error = if work.cancel.is_cancelled() { Error::cancelled() } else { error };
            work.terminal.failed(&error);
            match () {
                () if error.is_cancelled() => CANCELLED.into(),
                () if error.is_input() => WRONG_INPUT.into(),
                () => ExitCode::FAILURE,
            }
        }
    }
}

fn perform(command: Command, work: &mut Work) -> Result<()> {
    match command {
        Command::Import(args) => commands::import(args, work),
        Command::Clone(args) => commands::clone(*args, work),
        Command::Extract(args) => commands::extract(args, work),
        Command::Run(args) => list::run(args, work),
        Command::Export(args) => commands::export(&args, work),
        Command::Settings(args) => commands::settings(&args),
        Command::Doctor(args) => doctor::doctor(&args),
    }
}

/// Shows what is wrong with the words of the command line, or the help that they ask for.
fn refuse(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = arguments.iter().zip(arguments.iter().skip(1)).any(|(a, b)| a == "--progress" && b == "json")
        || arguments.iter().any(|argument| argument == "--progress=json");
    if json && !help {
        let text = error.to_string();
        let line = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let message = line.strip_prefix("error: ").unwrap_or(&line);
        Terminal::new(ProgressFormat::Json).failed(&Error::input(message));
    }
    // Nobody may be reading any more.
    let _ = error.print();
    if help { ExitCode::SUCCESS } else { WRONG_INPUT.into() }
}
