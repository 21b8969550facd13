//! The command line's options, and the settings they make.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use motionclone::bundle;
use motionclone::media::frames::Frames;
use motionclone::media::sampling::{Moment, Sampling, Selection};
use motionclone::onnx::checkpoint::Precision;
use motionclone::onnx::manifest::{Defaults, Manifest};
use motionclone::onnx::model::config::ControlKind;
use motionclone::runtime::Device;
use motionclone::settings::{Choices, Control, FrameRate, Model, Settings};
use motionclone::{Error, Result};

use crate::flags::{SettingArgs, size};
use crate::terminal::ProgressFormat;

/// Motion cloning: a new clip that moves like the one you give it.
#[derive(Debug, Parser)]
#[command(name = "motionclone", version)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a bundle from downloaded checkpoints.
    Import(Import),
    /// Make a new clip that moves like a reference clip.
    Clone(Box<CloneClip>),
    /// Keep a clip's motion in a file, for any number of clones.
    Extract(Extract),
    /// Run the published configuration files as they are.
    Run(Run),
    /// Write the ONNX graphs of a bundle, for other runtimes or to look at.
    Export(Export),
    /// Show the settings of a clone: what they do, what they may be, and the model's own values.
    Settings(ShowSettings),
    /// Show what was found: ONNX Runtime, devices, ffmpeg, a bundle's contents.
    Doctor(Doctor),
}

impl Command {
    /// How the command shows its progress.
    pub fn progress(&self) -> ProgressFormat {
        match self {
            Self::Import(args) => args.progress.progress,
            Self::Clone(args) => args.progress.progress,
            Self::Extract(args) => args.progress.progress,
            Self::Run(args) => args.progress.progress,
            Self::Export(args) => args.progress.progress,
            Self::Settings(_) | Self::Doctor(_) => ProgressFormat::Text,
        }
    }

    /// The command's name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Import(_) => "import",
            Self::Clone(_) => "clone",
            Self::Extract(_) => "extract",
            Self::Run(_) => "run",
            Self::Export(_) => "export",
            Self::Settings(_) => "settings",
            Self::Doctor(_) => "doctor",
        }
    }
}

/// How progress is shown.
#[derive(Debug, Args)]
pub struct ProgressArgs {
    /// Progress as a bar or lines on standard error (text), or as one JSON object a line on standard output (json).
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub progress: ProgressFormat,
}

#[derive(Debug, Args)]
pub struct Import {
    /// Stable Diffusion 1.5: a folder in diffusers' layout, or one checkpoint file.
    #[arg(long, value_name = "DIR_OR_FILE")]
    pub base: PathBuf,
    /// AnimateDiff's motion module (v3_sd15_mm.ckpt).
    #[arg(long, value_name = "FILE")]
    pub motion_module: Option<PathBuf>,
    /// A model of your style, which replaces the base's networks as far as it has them.
    #[arg(long, value_name = "FILE")]
    pub dreambooth: Option<PathBuf>,
    /// A VAE in a file or folder of its own, which replaces that of the base and of the style.
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    /// AnimateDiff's domain adapter (v3_sd15_adapter.ckpt), for runs with a picture or a sketch.
    #[arg(long, value_name = "FILE[:SCALE]", value_parser = scaled)]
    pub adapter: Option<(PathBuf, f32)>,
    /// A LoRA for the image model.
    #[arg(long, value_name = "FILE:SCALE", value_parser = scaled)]
    pub lora: Vec<(PathBuf, f32)>,
    /// A LoRA for the motion module.
    #[arg(long, value_name = "FILE:SCALE", value_parser = scaled)]
    pub motion_lora: Vec<(PathBuf, f32)>,
    /// SparseCtrl for pictures (v3_sd15_sparsectrl_rgb.ckpt).
    #[arg(long, value_name = "FILE")]
    pub sparsectrl_rgb: Option<PathBuf>,
    /// SparseCtrl for sketches (v3_sd15_sparsectrl_scribble.ckpt).
    #[arg(long, value_name = "FILE")]
    pub sparsectrl_scribble: Option<PathBuf>,
    /// AnimateDiff's model configuration, YAML or JSON; SD 1.5's values unless given.
    #[arg(long, value_name = "FILE")]
    pub model_config: Option<PathBuf>,
    /// SparseCtrl's configuration, YAML or JSON; the published values unless given.
    #[arg(long, value_name = "FILE")]
    pub sparsectrl_config: Option<PathBuf>,
    /// Folder with vocab.json and merges.txt; looked for in and beside the base unless given, else CLIP's.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// What clones use where nothing is said, YAML or JSON, by the names in a bundle's manifest; the published values
    /// for what the file leaves out.
    #[arg(long, value_name = "FILE")]
    pub defaults: Option<PathBuf>,
    /// The words that the model knows, where these are few: a text file with white space between them. A clone then
    /// warns of the others.
    #[arg(long, value_name = "FILE")]
    pub vocabulary: Option<PathBuf>,
    /// The bundle's name; that of the model's file unless given.
    #[arg(long)]
    pub name: Option<String>,
    /// Precision of the bundle's weights: keep (as they are), f16 or f32.
    #[arg(long, value_name = "PRECISION", default_value = "keep")]
    pub dtype: Precision,
    /// Folder of the new bundle.
    #[arg(long, value_name = "BUNDLE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub struct CloneClip {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The clip whose motion is cloned: a video, a folder of images, or a pattern of their names (shot_*.png).
    #[arg(long, value_name = "CLIP", required_unless_present = "motion")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub part: PartArgs,
    #[command(flatten)]
    pub control: ControlArgs,
    /// A motion kept by `extract`; the reference is then only shown in the contact sheet.
    #[arg(long, value_name = "FILE")]
    pub motion: Option<PathBuf>,
    #[command(flatten)]
    pub settings: SettingArgs<false>,
    /// Frames a second of the new clip: a number such as 12 or 23.976, or a fraction such as 30000/1001.
    #[arg(long, value_name = "RATE")]
    pub fps: Option<FrameRate>,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Also write a picture with the frames of the reference over those of the result.
    #[arg(long, value_name = "PNG")]
    pub contact_sheet: Option<PathBuf>,
    /// The new clip: .mp4, .webm, .gif, .webp, or a folder for PNG files; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub out: Vec<PathBuf>,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub struct Extract {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The clip: a video, a folder of images, or a pattern of their names (shot_*.png).
    #[arg(long, value_name = "CLIP")]
    pub reference: PathBuf,
    #[command(flatten)]
    pub part: PartArgs,
    #[command(flatten)]
    pub control: ControlArgs,
    #[command(flatten)]
    pub settings: SettingArgs<true>,
    /// The motion file (.safetensors).
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// A published configuration (YAML).
    #[arg(long, value_name = "YAML")]
    pub inference_config: PathBuf,
    /// The list of clips and prompts, one JSON object a line.
    #[arg(long, value_name = "JSONL")]
    pub examples: PathBuf,
    /// Pixels of the new clips; the configuration's W and H unless given.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Option<(usize, usize)>,
    /// Frames of the new clips; the configuration's L unless given.
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Frames a second of the new clips, as a number or a fraction.
    #[arg(long, value_name = "RATE")]
    pub fps: Option<FrameRate>,
    /// How frames are taken from the clips: by their number, as published, or evenly in time.
    #[arg(long, value_name = "HOW", default_value = "published")]
    pub sampling: Sampling,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Also write a contact sheet (.png) beside each clip.
    #[arg(long)]
    pub contact_sheets: bool,
    /// Folder for the new clips.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Pixels of the clips that the graphs are for.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: (usize, usize),
    /// Frames of the clips that the graphs are for.
    #[arg(long, value_name = "N")]
    pub frames: usize,
    /// UNet blocks whose motion is cloned.
    #[arg(long, value_name = "B,…", value_delimiter = ',')]
    pub blocks: Option<Vec<String>>,
    /// Folder of the graphs.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Look into this bundle, instead of the embedded one.
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ShowSettings {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// As JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// The model.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The model, as made by `import`; the small embedded one unless given.
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
}

impl BundleArgs {
    /// Whether none was named, so that the embedded model is used.
    pub fn is_embedded(&self) -> bool {
        self.bundle.is_none()
    }

    /// The bundle's folder.
    ///
    /// # Errors
    /// When none was named and the embedded model is not there.
    pub fn folder(&self) -> Result<PathBuf> {
        self.bundle.clone().map_or_else(bundle::embedded, Ok)
    }
}

/// Model and device.
#[derive(Debug, Args)]
pub struct EngineArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Where to compute: auto, cpu, or cuda:N.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: Device,
    /// CPU threads; one a core unless given.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory of the device that the model may take, such as 7.5GB; less memory takes more time.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory_budget: Option<u64>,
}

/// A size in bytes: a number with GB, MB, GiB or MiB.
fn memory(text: &str) -> Result<u64, String> {
    let units = [("GiB", (1u64 << 30) as f64), ("MiB", (1u64 << 20) as f64), ("GB", 1e9), ("MB", 1e6)];
    let found =
        units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?.trim().parse::<f64>().ok()?, *size)));
    match found {
        Some((number, size)) if number.is_finite() && number > 0.0 => Ok((number * size) as u64),
        _ => Err("a size such as 7.5GB; units are GB, MB, GiB and MiB".into()),
    }
}

/// The part of the reference that counts.
#[derive(Debug, Args)]
pub struct PartArgs {
    /// Where in the reference to begin: seconds (12.5), H:M:S (0:01:30.5), or a timecode (00:01:30:12).
    #[arg(long, value_name = "TIME")]
    pub start: Option<Moment>,
    /// Where in the reference to end, as with --start.
    #[arg(long, value_name = "TIME")]
    pub end: Option<Moment>,
    /// How frames are taken from the reference: evenly in time, or by their number (published).
    #[arg(long, value_name = "HOW", default_value = "time")]
    pub sampling: Sampling,
}

impl PartArgs {
    /// The frames that are read.
    pub fn selection(&self) -> Selection {
        Selection { start: self.start, end: self.end, sampling: self.sampling }
    }
}

/// Pictures or sketches that the clip must show.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// A picture or sketch that the new clip shows at a frame (0 unless given); may be given several times.
    #[arg(long, value_name = "IMG[@FRAME]")]
    pub image: Vec<OsString>,
    /// What the images are: pictures (rgb) or sketches (scribble).
    #[arg(long, value_parser = control_kind, default_value = "rgb", requires = "image")]
    pub control: ControlKind,
}

/// Motion is extracted once per clip and settings.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Extract the motion anew and do not keep it.
    #[arg(long)]
    pub no_cache: bool,
}

impl ControlArgs {
    /// The images' files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.image.iter().map(|text| placed(text).0).collect()
    }

    fn control(&self) -> Result<Option<Control>> {
        let mut images: Vec<(Frames, usize)> = Vec::new();
        for text in &self.image {
            let (path, frame) = placed(text);
            if images.iter().any(|(_, other)| *other == frame) {
                return Err(Error::input(format!("two images at frame {frame}: give each its frame as IMG@FRAME")));
            }
            images.push((Frames::open_image(&path)?, frame));
        }
        Ok((!images.is_empty()).then_some(Control { kind: self.control, images }))
    }
}

impl Extract {
    /// The settings of an extraction, checked against the model.
    pub fn settings(&self, manifest: &Manifest) -> Result<Settings> {
        checked(&self.settings.0, manifest, &self.control)
    }
}

impl CloneClip {
    /// The settings of a clone, checked against the model.
    pub fn settings(&self, manifest: &Manifest) -> Result<Settings> {
        checked(&self.settings.0, manifest, &self.control)
    }
}

fn checked(choices: &Choices, manifest: &Manifest, control: &ControlArgs) -> Result<Settings> {
    manifest.motion()?;
    let settings = choices.settings(&Model::from(manifest), control.control()?)?;
    settings.check(manifest)?;
    Ok(settings)
}

impl Export {
    /// The settings whose graphs are written.
    pub fn settings(&self, defaults: &Defaults) -> Settings {
        let (width, height) = self.size;
        let mut settings = Settings { width, height, frames: self.frames, ..Settings::new(defaults, "") };
        if let Some(blocks) = &self.blocks {
            settings.blocks.clone_from(blocks);
        }
        settings
    }
}

/// The arguments with option names spelt with dashes, as the published scripts spell some with underscores.
pub fn dashed(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut options_ended = false;
    arguments.map(move |argument| {
        options_ended |= argument == "--";
        match argument.to_str() {
            Some(text) if text.starts_with("--") && !options_ended => {
                let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
                format!("{}{value}", name.replace('_', "-")).into()
            }
            _ => argument,
        }
    })
}

/// `IMG[@FRAME]`; a file whose own name ends like that is meant as it is.
fn placed(text: &OsStr) -> (PathBuf, usize) {
    let split = text.to_str().filter(|_| !Path::new(text).exists()).and_then(|text| text.rsplit_once('@'));
    match split.and_then(|(path, frame)| Some((path, frame.parse().ok()?))) {
        Some((path, frame)) => (path.into(), frame),
        None => (text.into(), 0),
    }
}

/// `FILE[:SCALE]`.
fn scaled(text: &str) -> Result<(PathBuf, f32), String> {
    match text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f32>().ok()?))) {
        Some((_, scale)) if !scale.is_finite() => Err("the scale must be a number".into()),
        Some((path, scale)) => Ok((path.into(), scale)),
        None => Ok((text.into(), 1.0)),
    }
}

fn control_kind(text: &str) -> Result<ControlKind, String> {
    [ControlKind::Rgb, ControlKind::Scribble]
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| "must be rgb or scribble".into())
}

fn device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => match text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).filter(|number| *number >= 0) {
            Some(number) => Ok(Device::Cuda(number)),
            None => Err("must be auto, cpu, or cuda:N".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use motionclone::settings::Noise;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        let words = std::iter::once("motionclone").chain(line.split_whitespace()).map(OsString::from);
        CommandLine::try_parse_from(dashed(words))
    }

    #[test]
    fn the_definition_is_sound() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn values_are_understood() {
        assert_eq!(size("512x288"), Ok((512, 288)));
        assert_eq!(scaled("a/b.ckpt:0.5"), Ok(("a/b.ckpt".into(), 0.5)));
        assert_eq!(scaled("a/b.ckpt"), Ok(("a/b.ckpt".into(), 1.0)));
        assert_eq!(scaled("C:\\b.ckpt"), Ok(("C:\\b.ckpt".into(), 1.0)));
        assert_eq!(placed(OsStr::new("a@b.png@7")), ("a@b.png".into(), 7));
        assert_eq!(placed(OsStr::new("a@b.png")), ("a@b.png".into(), 0));
        assert_eq!(
            (device("cuda:1"), device("cuda"), device("cpu")),
            (Ok(Device::Cuda(1)), Ok(Device::Cuda(0)), Ok(Device::Cpu))
        );
        assert!(size("512").is_err() && size("x5").is_err() && scaled("a:nan").is_err());
        assert!(device("cuda:-1").is_err() && device("tpu").is_err());
    }

    #[test]
    fn underscores_do_for_dashes() {
        let line = "run --inference_config a_b.yaml --examples=c_d.jsonl --bundle b --out e_f";
        let Command::Run(run) = parse(line).expect("a sound command").command else { panic!("another command") };
        assert_eq!(run.inference_config, PathBuf::from("a_b.yaml"));
        assert_eq!((run.examples, run.out), ("c_d.jsonl".into(), "e_f".into()));
    }

    #[test]
    fn options_become_settings() {
        let line = "clone --bundle b --reference r --prompt p --motion-weight 0 --blocks up_blocks.1,up_blocks.2 \
                    --size 64x32 --frames 4 --seed 5 --noise cuda --out a.mp4 --out a.gif";
        let Command::Clone(clone) = parse(line).expect("a sound command").command else { panic!("another command") };
        assert_eq!(clone.out.len(), 2);
        let settings = clone.settings(&crate::testing::manifest()).expect("sound settings");
        assert_eq!((settings.width, settings.height, settings.frames, settings.seed), (64, 32, 4, 5));
        assert_eq!(settings.noise, Noise::Cuda);
        assert_eq!(settings.blocks, ["up_blocks.1", "up_blocks.2"]);
        assert_eq!(settings.motion_weight, 0.0);
    }

    #[test]
    fn steps_and_qualities_take_the_guided_steps_along() {
        let steps = |options: &str| {
            let line = format!("clone --reference r --prompt p --out a.mp4 {options}");
            let Command::Clone(clone) = parse(&line).expect("a sound command").command else {
                panic!("another command")
            };
            let settings = clone.settings(&crate::testing::manifest()).expect("sound settings");
            [settings.steps, settings.guidance_steps, settings.warm_up, settings.cool_up]
        };
        assert_eq!(steps(""), [100, 50, 10, 10]);
        assert_eq!(steps("--steps 40"), [40, 20, 4, 4]);
        assert_eq!(steps("--steps 40 --guidance-steps 30 --cool-up 0"), [40, 30, 4, 0]);
        assert_eq!(steps("--quality draft"), [40, 20, 4, 4]);
        assert_eq!(steps("--quality best"), [200, 100, 20, 20]);
        assert_eq!(steps("--quality standard"), [100, 50, 10, 10]);
        assert_eq!(steps("--guidance-steps 30"), [100, 30, 10, 10]);
    }

    #[test]
    fn strength_is_a_factor_on_the_weight_of_the_model() {
        let weight = |options: &str| {
            let line = format!("clone --reference r --prompt p --out a.mp4 {options}");
            let Command::Clone(clone) = parse(&line).ok()?.command else { panic!("another command") };
            clone.settings(&crate::testing::manifest()).ok().map(|settings| settings.motion_weight)
        };
        assert_eq!(weight("--strength 0.5"), Some(1000.0));
        assert_eq!(weight("--motion-weight 0.5"), Some(0.5));
        assert_eq!(weight("--strength 1 --motion-weight 2000"), None);
        assert_eq!(weight("--strength -1"), None);
    }

    #[test]
    fn every_setting_has_its_flag_and_its_help() {
        let root = <CommandLine as clap::CommandFactory>::command();
        let [clone, extract] = ["clone", "extract"].map(|name| root.find_subcommand(name).expect("a command"));
        for setting in motionclone::settings::settings() {
            let flag = crate::flags::flag(setting).unwrap_or_else(|| "size".into());
            let found = |command: &clap::Command| {
                let flags = command.get_arguments().find(|argument| argument.get_long() == Some(&flag));
                flags.map(|argument| argument.get_help().map(ToString::to_string).unwrap_or_default())
            };
            let help = found(clone).unwrap_or_else(|| panic!("{} has no flag", setting.name));
            assert!(flag == "size" || help == setting.help, "{help}");
            assert_eq!(found(extract).is_some(), setting.changes_motion, "{}", setting.name);
        }
    }

    #[test]
    fn a_clone_needs_a_clip_or_its_motion() {
        assert!(parse("clone --bundle b --prompt p --out a.mp4").is_err());
        assert!(parse("clone --bundle b --prompt p --motion m --out a.mp4").is_ok());
        assert!(parse("clone --bundle b --prompt p --motion m --control scribble --out a.mp4").is_err());
    }

    #[test]
    fn two_images_need_two_frames() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.png");
        crate::output::write_png(&path, &crate::testing::moving_bars(1, 8, 8)).expect("a picture");
        let control = |images: &[OsString]| ControlArgs { image: images.to_vec(), control: ControlKind::Rgb }.control();
        let at = |frame: &str| [path.as_os_str(), OsStr::new(frame)].into_iter().collect::<OsString>();
        let both = control(&[at(""), at("@3")]).expect("two images").expect("a control");
        assert_eq!(both.images.iter().map(|(_, frame)| *frame).collect::<Vec<_>>(), [0, 3]);
        let error = control(&[at(""), at("@0")]).expect_err("one frame for two");
        assert!(error.is_input() && error.to_string().contains("two images at frame 0"), "{error}");
        assert!(control(&[]).expect("nothing asked").is_none());
    }

    /// The words of a command, quoted ones kept together.
    fn split(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(i, part)| match i % 2 {
                0 => part.split_whitespace().map(String::from).collect(),
                _ => vec![part.to_string()],
            })
            .collect()
    }

    #[test]
    fn the_commands_of_the_readme_are_sound() {
        let readme = include_str!("../../../README.md");
        let blocks = readme.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
        let commands: Vec<&str> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect();
        let is_ours = |line: &&&str| line.split(' ').next().is_some_and(|program| program.ends_with("motionclone"));
        let ours = commands.iter().filter(is_ours);
        for line in ours.clone() {
            let parsed = CommandLine::try_parse_from(dashed(split(line).into_iter().map(OsString::from)));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        assert!(ours.count() >= 7, "the README shows what it did");
        for line in commands.iter().filter(|line| !is_ours(line)) {
            // `cargo xtask test` sets up and makes the demo, runs this and the recorded runs; `tests/capi_hosts.rs` makes
            // the tree and builds the C example against it.
            let run = [
                "cargo xtask demo",
                "cargo xtask test",
                "cargo xtask setup",
                "cargo xtask dist",
                "cargo test --release --test golden -- --nocapture",
                "gcc -std=c11 examples/c/clone.c $(pkg-config --cflags --libs motionclone) -lm -o clone",
                "./clone realistic frames.rgb",
            ];
            assert!(run.contains(line), "{line} is not run by any test");
        }
    }

    #[test]
    fn options_that_the_readme_names_exist() {
        let readme = include_str!("../../../README.md");
        let root = <CommandLine as clap::CommandFactory>::command();
        let options: Vec<String> = root
            .get_subcommands()
            .flat_map(|command| command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))))
            .collect();
        for text in readme.split('`').skip(1).step_by(2).filter(|text| text.starts_with("--")) {
            let option = text.split([' ', '=']).next().unwrap_or(text);
            assert!(option == "--cuda" || options.iter().any(|o| o == option), "{option}");
        }
    }
}
