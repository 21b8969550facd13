//! Engines on the GPU, and how much of its memory is in use.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use motionclone::onnx::graph::Lowering;
use motionclone::onnx::graph::cuda::Fused;
use motionclone::runtime::Device;
use motionclone::{Engine, EngineOptions, Result};

/// Tries the program out where there is no GPU: the portable operators on the CPU, at a small size.
const TRY: &str = "MOTIONCLONE_BENCH_TRY";

/// Operators that are left out because they failed: names in this variable, and those found since.
pub const WITHOUT: &str = "MOTIONCLONE_BENCH_WITHOUT";

type Off = fn(&mut Fused);

/// The names that operators have in messages, and what turns each off. Own kernels come first: the names of other
/// operators are parts of theirs.
const FAMILIES: [(&str, Off); 21] = [
    ("SumLayerNorm", |f| f.sums = false),
    ("FusedLayerNorm", |f| f.sums = false),
    ("ResidualSum", |f| f.sums = false),
    ("TemporalAttention", |f| f.temporal_attention = false),
    ("AttentionStatistics", |f| f.attention_gradient = false),
    ("AttentionQueryGradient", |f| f.attention_gradient = false),
    ("AttentionKeyGradient", |f| f.attention_gradient = false),
    ("NormGradient", |f| f.norm_gradients = false),
    ("GroupNormStatistics", |f| f.norm_gradients = false),
    ("GroupNormSums", |f| f.norm_gradients = false),
    ("GegluGradient", |f| f.geglu_gradient = false),
    ("NeighbourSum", |f| f.neighbour_sum = false),
    ("Kernels", |f| *f = f.without_kernels()),
    ("NhwcConv", |f| f.convolution = false),
    ("ReversedConv", |f| f.reversed_gradient = false),
    ("SkipGroupNorm", |f| f.skip_group_norm = false),
    ("GroupNorm", |f| f.group_norm = false),
    ("SkipLayerNormalization", |f| f.skip_layer_norm = false),
    ("MultiHeadAttention", |f| f.attention = false),
    ("BiasSplitGelu", |f| f.split_gelu = false),
    ("QuickGelu", |f| f.swish = false),
];

/// How the GPU's networks are made, changed where one does not work.
#[derive(Clone, Copy)]
pub struct Way {
    pub fused: Fused,
    pub cpu_nodes: bool,
    pub replay: bool,
}

impl Way {
    /// Everything, but for what the environment leaves out.
    pub fn new() -> Self {
        let mut way = Self { fused: Fused::ALL, cpu_nodes: false, replay: true };
        for word in std::env::var(WITHOUT).unwrap_or_default().split([',', ' ', '\n']) {
            way.without(word);
        }
        way
    }

    /// Leaves an operator out; whether that changes anything.
    pub fn without(&mut self, name: &str) -> bool {
        let before = (self.fused, self.cpu_nodes, self.replay);
        if name == "CpuNodes" {
            self.cpu_nodes = true;
        }
        if name == "Replay" {
            self.replay = false;
        }
        for (_, off) in FAMILIES.iter().filter(|(family, _)| *family == name) {
            off(&mut self.fused);
        }
        before != (self.fused, self.cpu_nodes, self.replay)
    }

    /// Leaves out what an error's message names; whether there is another way to try.
    fn avoid(&mut self, message: &str) -> bool {
        if message.contains("fallback to CPU EP") || message.contains("assigned to the default CPU EP") {
            return self.without("CpuNodes");
        }
        FAMILIES.iter().any(|(name, _)| message.contains(name) && self.without(name))
    }

    pub fn device() -> Device {
        if std::env::var_os(TRY).is_some() { Device::Cpu } else { Device::Cuda(0) }
    }

    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            device: Self::device(),
            cuda_lowering: Some(Lowering::Cuda(self.fused)),
            cpu_nodes: self.cpu_nodes,
            without_cuda_graph: !self.replay,
            ..Default::default()
        }
    }

    pub fn engine(&self, bundle: &Path, profile: Option<PathBuf>) -> Result<Engine> {
        let options = EngineOptions { profile, ..self.options() };
        let engine = Engine::open(bundle, &options)?;
        println!("{}", engine.device_and_reason());
        Ok(engine)
    }

    /// Does `work` with an engine; when it fails over an operator, again without that.
    pub fn try_with<T>(
        &mut self,
        bundle: &Path,
        mut work: impl FnMut(&mut Engine) -> Result<T>,
    ) -> Result<(Engine, T)> {
        loop {
            let mut engine = self.engine(bundle, None)?;
            match work(&mut engine) {
                Ok(result) => return Ok((engine, result)),
                Err(e) => {
                    let message = e.to_string();
                    println!("failed: {}", message.chars().take(1500).collect::<String>());
                    if !self.avoid(&message) {
                        return Err(e);
                    }
                    println!("again with {:?}, nodes on the CPU {}", self.fused, self.cpu_nodes);
                }
            }
        }
    }
}

/// The largest use of the GPU's memory, as its driver tells while this lives.
pub struct Memory {
    child: Option<Child>,
    now: Arc<AtomicU64>,
    peak: Arc<AtomicU64>,
}

impl Memory {
    pub fn watch() -> Self {
        let (now, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let words = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=50", "--id=0"];
        let mut child =
            Command::new("nvidia-smi").args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok();
        if let Some(output) = child.as_mut().and_then(|child| child.stdout.take()) {
            let (now, peak) = (now.clone(), peak.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                    if let Ok(mib) = line.trim().parse() {
                        now.store(mib, Ordering::Relaxed);
                        peak.fetch_max(mib, Ordering::Relaxed);
                    }
                }
            });
        }
        Self { child, now, peak }
    }

    /// MiB in use, and the most since the last call.
    pub fn used(&self) -> (u64, u64) {
        std::thread::sleep(std::time::Duration::from_millis(120));
        let now = self.now.load(Ordering::Relaxed);
        (now, self.peak.swap(now, Ordering::Relaxed))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
