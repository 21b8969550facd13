//! The project's own programs for NVIDIA GPUs: PTX, which the CUDA driver compiles for the card that is there.
//!
//! `onnx/kernels` holds their sources and the one file that is made of them, which is carried inside the library.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::{Error, Result};

/// Gzip of JSON: what `onnx/kernels/compile.py` wrote.
static CARRIED: &[u8] = include_bytes!("../kernels/kernels.bin");

/// Bytes of JSON at most.
const LARGEST: u64 = 256 << 20;

/// One program: a kernel for some sizes and some cards.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Kernel {
    /// What it computes.
    pub name: String,
    /// The sizes that it was compiled for, and what part of the work one block of threads does.
    pub variant: BTreeMap<String, i64>,
    /// The oldest cards that it runs on: ten times the compute capability's major number, plus the minor one.
    pub capability: u32,
    /// Its name in the PTX.
    pub entry: String,
    /// Threads of a block.
    pub threads: u32,
    /// Shared memory of a block in bytes, given at launch.
    pub shared: u32,
    /// The program.
    pub ptx: String,
}

impl Kernel {
    /// One of the numbers that it was compiled with.
    pub fn fact(&self, name: &str) -> Option<usize> {
        usize::try_from(*self.variant.get(name)?).ok()
    }

    /// The sizes as a graph names them, such as `rows=16,width=40`.
    pub fn label(&self) -> String {
        let facts: Vec<String> = self.variant.iter().map(|(name, value)| format!("{name}={value}")).collect();
        facts.join(",")
    }

    /// Whether it runs on cards of a compute capability, written as in [`Kernel::capability`]. A target such as `sm_90a`
    /// is for one capability alone.
    pub fn runs_on(&self, capability: u32) -> bool {
        let target = self.ptx.lines().find_map(|line| line.trim().strip_prefix(".target "));
        let one = target.is_some_and(|target| target.split(',').next().is_some_and(|name| name.trim().ends_with('a')));
        if one { self.capability == capability } else { self.capability <= capability }
    }
}

/// A set of programs.
#[derive(Debug, Deserialize)]
pub struct Kernels {
    /// CRC-32 of the sources.
    source: u32,
    kernels: Vec<Kernel>,
}

impl Kernels {
    /// Reads gzip of JSON.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(file: &[u8]) -> Result<Self> {
        let damaged = |e: &dyn std::fmt::Display| Error::failure(format!("the file of GPU kernels is damaged: {e}"));
        let mut json = String::new();
        GzDecoder::new(file).take(LARGEST).read_to_string(&mut json).map_err(|e| damaged(&e))?;
        let all: Self = serde_json::from_str(&json).map_err(|e| damaged(&e))?;
        match all.kernels.iter().find(|kernel| kernel.threads == 0 || kernel.ptx.contains('\0')) {
            Some(kernel) => Err(damaged(&format!("{} {} has no threads or no text", kernel.name, kernel.label()))),
            None => Ok(all),
        }
    }

    /// Those inside the library.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn carried() -> Result<&'static Self> {
        static READ: OnceLock<Result<Kernels>> = OnceLock::new();
        READ.get_or_init(|| Self::read(CARRIED)).as_ref().map_err(|e| Error::failure(e.to_string()))
    }

    /// CRC-32 of the sources that they were compiled of.
    pub fn source(&self) -> u32 {
        self.source
    }

    /// Every one.
    pub fn all(&self) -> &[Kernel] {
        &self.kernels
    }

    /// A kernel for some sizes, on whichever cards.
    pub fn find(&self, name: &str, sizes: &[(&str, usize)]) -> Option<&Kernel> {
        self.kernels
            .iter()
            .find(|kernel| kernel.name == name && sizes.iter().all(|(size, value)| kernel.fact(size) == Some(*value)))
    }

    /// The programs of a kernel and its sizes, as [`Kernel::label`] names them, that run on cards of a compute
    /// capability; the newest first.
    pub fn programs(&self, name: &str, label: &str, capability: u32) -> Vec<&Kernel> {
        let fits = |kernel: &&Kernel| kernel.name == name && kernel.label() == label && kernel.runs_on(capability);
        let mut programs: Vec<&Kernel> = self.kernels.iter().filter(fits).collect();
        programs.sort_by_key(|kernel| std::cmp::Reverse(kernel.capability));
        programs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::{Kernel, Kernels};

    fn packed(json: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(json.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn kernel(capability: u32, target: &str) -> Kernel {
        Kernel {
            name: "sum".into(),
            variant: BTreeMap::from([("width".into(), 40), ("block".into(), 8)]),
            capability,
            entry: "sum".into(),
            threads: 32,
            shared: 0,
            ptx: format!(".version 8.0\n.target {target}\n"),
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let whole = packed(r#"{"source":0,"kernels":[]}"#);
        assert!(Kernels::read(&whole).unwrap().all().is_empty());
        let entry = r#"{"name":"k","variant":{},"capability":80,"entry":"k","threads":0,"shared":0,"ptx":""}"#;
        for damaged in [
            &b"no gzip"[..],
            &whole[..whole.len() / 2],
            &packed("{}"),
            &packed(r#"{"source":0,"kernels":[{"name":"k"}]}"#),
            &packed(&format!(r#"{{"source":0,"kernels":[{entry}]}}"#)),
        ] {
            let message = Kernels::read(damaged).unwrap_err().to_string();
            assert!(message.starts_with("the file of GPU kernels is damaged: "), "{message}");
        }
    }

    #[test]
    fn a_card_gets_the_newest_program_that_it_runs() {
        let kernels = Kernels { source: 0, kernels: vec![kernel(80, "sm_80"), kernel(90, "sm_90a")] };
        let chosen = |capability| -> Vec<u32> {
            kernels.programs("sum", "block=8,width=40", capability).iter().map(|kernel| kernel.capability).collect()
        };
        assert!(chosen(75).is_empty());
        assert_eq!(chosen(89), [80]);
        assert_eq!(chosen(90), [90, 80]);
        assert_eq!(chosen(100), [80]);
        assert!(kernels.programs("sum", "block=8,width=80", 90).is_empty());
        assert_eq!(kernels.find("sum", &[("width", 40)]).and_then(|kernel| kernel.fact("block")), Some(8));
        assert!(kernels.find("sum", &[("width", 41)]).is_none());
    }

    #[test]
    fn what_is_carried_was_made_of_these_sources() {
        let mut sum = flate2::Crc::new();
        sum.update(include_bytes!("../kernels/kernels.py"));
        sum.update(include_bytes!("../kernels/variants.py"));
        assert_eq!(Kernels::carried().unwrap().source(), sum.sum(), "run onnx/kernels/compile.py");
    }

    #[test]
    fn programs_of_the_same_sizes_share_out_the_work_alike() {
        let all = Kernels::carried().unwrap().all();
        assert!(!all.is_empty());
        for kernel in all {
            // What a graph says of the launch holds for every card.
            let base = all.iter().find(|k| k.name == kernel.name && k.label() == kernel.label() && k.capability == 80);
            assert!(base.is_some(), "{} {} runs on few cards only", kernel.name, kernel.label());
            assert!(kernel.ptx.contains(&format!(".entry {}(", kernel.entry)), "{} {}", kernel.name, kernel.label());
        }
    }
}
