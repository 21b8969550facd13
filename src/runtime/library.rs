//! The ONNX Runtime library: finding it, and loading it once for the process.

use std::path::{Path, PathBuf};

use motionclone_abi::files::{self, RUNTIME_VARIABLE};
use once_cell::sync::OnceCell;
use ort::environment::GlobalThreadPoolOptions;
use ort::ep;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::statics;
use super::telemetry::TelemetryOff;
use crate::error::{Error, Result};

/// The loaded library. A process has one; it stays until the process ends, because ONNX Runtime does not survive being
/// torn down and set up again.
#[derive(Debug)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: PathBuf,
}

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

impl Runtime {
    /// Loads ONNX Runtime once for the process, from `library`, or the file named by [`RUNTIME_VARIABLE`], or the folder
    /// of this shared library or program, or `lib` beside the program's folder. The host's search path is never used,
    /// and another ONNX Runtime in the process stays apart, because its symbols are looked up in this file alone.
    ///
    /// # Errors
    /// When no library is found, it cannot be loaded, or it is too old.
    pub fn load(library: Option<&Path>) -> Result<&'static Self> {
        Self::load_then(library, || ())
    }

    /// The same; `loaded` is called when the file has been loaded, before anything in it runs.
    pub(crate) fn load_then(library: Option<&Path>, loaded: impl FnOnce()) -> Result<&'static Self> {
        RUNTIME.get_or_try_init(|| Self::load_first(library, loaded))
    }

    fn load_first(library: Option<&Path>, loaded: impl FnOnce()) -> Result<Self> {
        let library = find_library(library)?;
        let failed =
            |e: &dyn std::fmt::Display| Error::input(format!("cannot load ONNX Runtime: {e}")).with_path(&library);
        // The library decides as it sets itself up; what `with_telemetry` says comes behind that.
        let _off = TelemetryOff::new();
        let environment = ort::init_from(&library).map_err(|e| failed(&e))?;
        statics::keep(&library);
        loaded();
        let pool = GlobalThreadPoolOptions::default().with_spin_control(false).map_err(|e| failed(&e))?;
        let environment = environment
            .with_name("motionclone")
            .with_telemetry(false)
            // One pool for all networks, since idle threads of one would be in the way of the next; and threads that wait
            // sleep, since the program that hosts this library needs the cores too.
            .with_global_thread_pool(pool)
            .build()
            .map_err(|e| failed(&e))?;
        Ok(Self { environment, library })
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Whether this build of the library can use CUDA. Whether a device works shows when an engine is opened on it.
    pub fn has_cuda(&self) -> bool {
        <ep::CUDA as ep::ExecutionProvider>::is_available().unwrap_or(false)
    }

    pub(crate) fn session_builder(&self) -> ort::Result<SessionBuilder> {
        Session::builder(&self.environment)
    }

    /// What the library says of itself: version and build.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

fn find_library(given: Option<&Path>) -> Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io(path, e));
    let configured = given.map(Path::to_path_buf).or_else(|| std::env::var_os(RUNTIME_VARIABLE).map(PathBuf::from));
    if let Some(path) = configured {
        if !path.is_file() {
            return Err(Error::input("no ONNX Runtime library there").with_path(&path));
        }
        return absolute(&path);
    }
    let mut folders = own_folders();
    folders.extend(folders.last().map(|program| program.with_file_name("lib")));
    let files = folders.iter().flat_map(|folder| files::RUNTIMES.iter().map(|name| folder.join(name)));
    if let Some(path) = files.into_iter().find(|path| path.is_file()) {
        return absolute(&path);
    }
    folders.dedup();
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::input(format!(
        "no ONNX Runtime: put {} into one of {}, or name it in {RUNTIME_VARIABLE}",
        files::RUNTIMES[0],
        folders.join(", ")
    )))
}

/// The folders of this shared library and of the program, the program's last.
pub(crate) fn own_folders() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    files::own_folder().into_iter().chain(program).collect()
}
