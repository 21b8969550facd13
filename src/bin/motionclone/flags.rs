//! The flags of settings: one for each row of the table.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser};
use motionclone::settings::{Choices, Kind, Setting, Value, named, settings};

/// The flag that stands for width and height.
const SIZE: &str = "size";

/// Flags of the settings, of those alone that change the extracted motion where `EXTRACTION` is true.
#[derive(Debug)]
pub struct SettingArgs<const EXTRACTION: bool>(pub Choices);

/// A setting's flag without its dashes; `None` for what `--size` says.
pub fn flag(setting: &Setting) -> Option<String> {
    match setting.name {
        "width" | "height" => None,
        "negative_prompt" => Some("negative".into()),
        name => Some(name.replace('_', "-")),
    }
}

fn flags(extraction: bool) -> impl Iterator<Item = (&'static Setting, String)> {
    settings()
        .filter(move |setting| setting.changes_motion || !extraction)
        .filter_map(|setting| Some((setting, flag(setting)?)))
}

fn argument(setting: &'static Setting, flag: String) -> Arg {
    let value = match setting.kind {
        Kind::Integer | Kind::Seed => "N".to_string(),
        Kind::Number => "X".into(),
        Kind::Text => "TEXT".into(),
        Kind::Choice(names) => names.join("|"),
        Kind::List => "A,…".into(),
    };
    let parse = move |text: &str| setting.kind.parse(text);
    let argument = Arg::new(setting.name).long(flag).value_name(value).help(setting.help);
    // A text may begin with a dash, and a number that is too low deserves its own refusal.
    let argument = match setting.kind {
        Kind::Integer | Kind::Seed | Kind::Number => argument.allow_negative_numbers(true),
        _ => argument,
    };
    let argument = argument.value_parser(ValueParser::new(parse));
    match setting.name {
        "prompt" => argument.required(true),
        "strength" => argument.conflicts_with("motion_weight"),
        "control_scale" => argument.requires("image"),
        _ if setting.advanced => argument.help_heading("Advanced settings"),
        _ => argument,
    }
}

impl<const EXTRACTION: bool> Args for SettingArgs<EXTRACTION> {
    fn augment_args(command: Command) -> Command {
        let size = Arg::new(SIZE)
            .long(SIZE)
            .value_name("WxH")
            .help("Pixels of the new clip, multiples of 8")
            .value_parser(ValueParser::new(size));
        flags(EXTRACTION).map(|(setting, flag)| argument(setting, flag)).fold(command.arg(size), Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const EXTRACTION: bool> FromArgMatches for SettingArgs<EXTRACTION> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut choices = Choices::default();
        if let Some((width, height)) = matches.get_one::<(usize, usize)>(SIZE) {
            for (name, value) in [("width", width), ("height", height)] {
                named(name).into_iter().for_each(|setting| choices.choose(setting, Value::Integer(*value as u64)));
            }
        }
        for (setting, _) in flags(EXTRACTION) {
            if let Some(value) = matches.get_one::<Value>(setting.name) {
                choices.choose(setting, value.clone());
            }
        }
        Ok(Self(choices))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `WxH`.
pub fn size(text: &str) -> Result<(usize, usize), String> {
    let (width, height) = text.split_once(['x', 'X', '×']).ok_or("must be like 512x512")?;
    match (width.parse(), height.parse()) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err("must be like 512x512".into()),
    }
}
