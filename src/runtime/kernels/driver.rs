//! The CUDA driver's library, loaded where ONNX Runtime computes on a CUDA device: programs, launching them, and memory.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::sync::{LazyLock, Mutex};

use half::f16;
use libloading::Library;
use motionclone_onnx::kernels::{Kernel, Kernels};
use once_cell::sync::OnceCell;

use super::target::Target;
use crate::error::{Error, Result};
use crate::sync::lock;

#[cfg(windows)]
const LIBRARY: &str = "nvcuda.dll";
#[cfg(not(windows))]
const LIBRARY: &str = "libcuda.so.1";

/// The oldest GPUs that the kernels are for, written as in [`Kernel::capability`].
const OLDEST: u32 = 80;
/// Dynamic shared memory that a kernel gets without being allowed more.
const SHARED_FOR_ALL: u32 = 48 << 10;

// Numbers of the driver's interface (cuda.h).
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const MAX_SHARED_MEMORY_PER_BLOCK: c_int = 97;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
const JIT_ERROR_LOG_BUFFER: c_int = 5;
const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

/// An opaque driver handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(*mut c_void);

// SAFETY: the driver lets any thread use its contexts and functions; nothing here looks behind the address.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The driver's functions, as cuda.h declares them.
struct Driver {
    init: unsafe extern "system" fn(c_uint) -> c_int,
    error_string: unsafe extern "system" fn(c_int, *mut *const c_char) -> c_int,
    device: unsafe extern "system" fn(*mut c_int, c_int) -> c_int,
    attribute: unsafe extern "system" fn(*mut c_int, c_int, c_int) -> c_int,
    retain_context: unsafe extern "system" fn(*mut *mut c_void, c_int) -> c_int,
    current_context: unsafe extern "system" fn(*mut *mut c_void) -> c_int,
    set_context: unsafe extern "system" fn(*mut c_void) -> c_int,
    load_module:
        unsafe extern "system" fn(*mut *mut c_void, *const c_void, c_uint, *mut c_int, *mut *mut c_void) -> c_int,
    function: unsafe extern "system" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int,
    set_attribute: unsafe extern "system" fn(*mut c_void, c_int, c_int) -> c_int,
    launch: unsafe extern "system" fn(
        *mut c_void,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        *mut c_void,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int,
    allocate: unsafe extern "system" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "system" fn(u64) -> c_int,
    copy_to_device: unsafe extern "system" fn(u64, *const c_void, usize) -> c_int,
    wait: unsafe extern "system" fn(*mut c_void) -> c_int,
    /// Keeps the functions in memory.
    _library: Library,
}

impl Driver {
    fn load() -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::failure(format!("the CUDA driver does not load: {e}"));
        // SAFETY: loading NVIDIA's driver runs its own start-up code, which ONNX Runtime's CUDA provider has done already.
        let library = unsafe { Library::new(LIBRARY) }.map_err(|e| failed(&e))?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the field's type is what cuda.h declares for this name, and the library stays beside it.
                *unsafe { library.get($name) }.map_err(|e| failed(&e))?
            };
        }
        Ok(Self {
            init: symbol!(b"cuInit\0"),
            error_string: symbol!(b"cuGetErrorString\0"),
            device: symbol!(b"cuDeviceGet\0"),
            attribute: symbol!(b"cuDeviceGetAttribute\0"),
            retain_context: symbol!(b"cuDevicePrimaryCtxRetain\0"),
            current_context: symbol!(b"cuCtxGetCurrent\0"),
            set_context: symbol!(b"cuCtxSetCurrent\0"),
            load_module: symbol!(b"cuModuleLoadDataEx\0"),
            function: symbol!(b"cuModuleGetFunction\0"),
            set_attribute: symbol!(b"cuFuncSetAttribute\0"),
            launch: symbol!(b"cuLaunchKernel\0"),
            allocate: symbol!(b"cuMemAlloc_v2\0"),
            free: symbol!(b"cuMemFree_v2\0"),
            copy_to_device: symbol!(b"cuMemcpyHtoD_v2\0"),
            wait: symbol!(b"cuStreamSynchronize\0"),
            _library: library,
        })
    }

    fn check(&self, what: &str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let mut text: *const c_char = null();
        // SAFETY: the driver writes the address of a text of its own, or leaves null.
        let known = unsafe { (self.error_string)(status, &mut text) } == 0 && !text.is_null();
        // SAFETY: a text of the driver's ends with a zero and stays.
        let text = if known { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown".into() };
        Err(Error::failure(format!("{what}: CUDA error {status}, {text}")))
    }
}

/// A CUDA device, with the programs that were made for it so far; both stay until the process ends, as ONNX Runtime does.
pub struct CudaDevice {
    driver: &'static Driver,
    /// The context that ONNX Runtime computes in, too.
    context: Handle,
    capability: u32,
    /// Bytes of shared memory that a block may ask for.
    shared: u32,
    programs: Mutex<HashMap<(String, String), Program>>,
    /// Set once kernels are known to run on it.
    runs_kernels: OnceCell<()>,
}

/// A kernel that is ready to run.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    function: Handle,
    threads: u32,
    shared: u32,
}

impl CudaDevice {
    /// The device that CUDA counts as `number`.
    ///
    /// # Errors
    /// When the driver does not load, or there is no such device.
    pub fn get(number: i32) -> Result<&'static Self> {
        static DEVICES: LazyLock<Mutex<HashMap<i32, &'static CudaDevice>>> = LazyLock::new(Mutex::default);
        let mut devices = lock(&DEVICES);
        if let Some(device) = devices.get(&number) {
            return Ok(device);
        }
        let device: &'static Self = Box::leak(Box::new(Self::open(number)?));
        devices.insert(number, device);
        Ok(device)
    }

    /// The same, where the kernels run on it.
    ///
    /// # Errors
    /// Why they do not.
    pub fn with_kernels(number: i32) -> Result<&'static Self> {
        let device = Self::get(number)?;
        device.runs_kernels.get_or_try_init(|| device.check())?;
        Ok(device)
    }

    fn open(number: i32) -> Result<Self> {
        static DRIVER: OnceCell<Driver> = OnceCell::new();
        let driver = DRIVER.get_or_try_init(Driver::load)?;
        let (mut device, mut context) = (0, null_mut());
        // SAFETY: as every call of the driver here: what it writes to is of the type that cuda.h says, and lives.
        driver.check("starting the CUDA driver", unsafe { (driver.init)(0) })?;
        // SAFETY: as above.
        driver.check(&format!("opening CUDA device {number}"), unsafe { (driver.device)(&mut device, number) })?;
        let attribute = |which: c_int| -> Result<u32> {
            let mut value = 0;
            // SAFETY: as above.
            driver
                .check("asking for a compute capability", unsafe { (driver.attribute)(&mut value, which, device) })?;
            Ok(value.unsigned_abs())
        };
        let (major, minor) = (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?);
        let shared = attribute(MAX_SHARED_MEMORY_PER_BLOCK)?;
        let capability = 10 * major + minor;
        // SAFETY: as above. The context is never given back, so it stays for all that follows.
        driver.check("taking its context", unsafe { (driver.retain_context)(&mut context, device) })?;
        Ok(Self {
            driver,
            context: Handle(context),
            capability,
            shared,
            programs: Mutex::default(),
            runs_kernels: OnceCell::new(),
        })
    }

    /// Makes the smallest program, to know that the driver takes what the kernels are written in.
    fn check(&self) -> Result<()> {
        if self.capability < OLDEST {
            return Err(Error::failure(format!(
                "it has compute capability {}.{}, the kernels take {}.{} or newer",
                self.capability / 10,
                self.capability % 10,
                OLDEST / 10,
                OLDEST % 10
            )));
        }
        let all = Kernels::carried()?.all().iter().filter(|kernel| kernel.runs_on(self.capability));
        all.min_by_key(|kernel| kernel.ptx.len()).map_or(Ok(()), |kernel| self.make(kernel).map(drop))
    }

    /// The kernels that take more shared memory than this device has, each with the reason for people.
    ///
    /// # Errors
    /// When the kernels inside the library are damaged.
    pub fn too_large(&self) -> Result<Vec<(&'static str, String)>> {
        let mut large = Vec::new();
        for kernel in Kernels::carried()?.all() {
            let (name, label) = (&kernel.name, kernel.label());
            if self.programs_of(name, &label)?.is_empty() {
                let (takes, has) = (kernel.shared, self.shared);
                let reason = format!("the kernel {name} {label} takes {takes} bytes of shared memory, not {has}");
                large.push((name.as_str(), reason));
            }
        }
        Ok(large)
    }

    /// The programs for this device, the newest first.
    fn programs_of(&self, name: &str, variant: &str) -> Result<Vec<&'static Kernel>> {
        let mut programs = Kernels::carried()?.programs(name, variant, self.capability);
        programs.retain(|kernel| kernel.shared <= self.shared);
        Ok(programs)
    }

    fn make(&self, kernel: &Kernel) -> Result<Program> {
        let what = format!("making the kernel {} {} for this card", kernel.name, kernel.label());
        let text = |text: &str| CString::new(text).map_err(|e| Error::failure(format!("{what}: {e}")));
        let (ptx, entry) = (text(&kernel.ptx)?, text(&kernel.entry)?);
        self.enter()?;
        let mut log = vec![0u8; 2048];
        let mut names = [JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // A number is given in the place of an address.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let (mut module, mut function) = (null_mut(), null_mut());
        // SAFETY: the text ends with a zero; there are two options, whose log is as long as is said, and all outlive the
        // call.
        let status = unsafe {
            (self.driver.load_module)(&mut module, ptx.as_ptr().cast(), 2, names.as_mut_ptr(), values.as_mut_ptr())
        };
        let said = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).trim().to_string();
        let told = |e: Error| if said.is_empty() { e } else { Error::failure(format!("{e}: {said}")) };
        self.driver.check(&what, status).map_err(told)?;
        // SAFETY: the module was just loaded, the name ends with a zero.
        self.driver.check(&what, unsafe { (self.driver.function)(&mut function, module, entry.as_ptr()) })?;
        if kernel.shared > SHARED_FOR_ALL {
            let bytes = c_int::try_from(kernel.shared).unwrap_or(c_int::MAX);
            // SAFETY: the function is of the module that was just loaded.
            let status = unsafe { (self.driver.set_attribute)(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes) };
            self.driver.check(&what, status)?;
        }
        Ok(Program { function: Handle(function), threads: kernel.threads, shared: kernel.shared })
    }

    /// Makes the device's context that of this thread, where it is not: ONNX Runtime chooses the device for the threads
    /// that it starts a run on.
    fn enter(&self) -> Result<()> {
        let mut current = null_mut();
        // SAFETY: as in `open`.
        self.driver.check("asking for the context", unsafe { (self.driver.current_context)(&mut current) })?;
        if current == self.context.0 {
            return Ok(());
        }
        // SAFETY: the context was retained and is never given back.
        self.driver.check("entering the context", unsafe { (self.driver.set_context)(self.context.0) })
    }
}

/// Memory of a device, freed when dropped.
pub struct DeviceMemory {
    device: &'static CudaDevice,
    address: u64,
}

impl DeviceMemory {
    /// Memory that holds a copy of `values`, of which there is at least one.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn holding(device: &'static CudaDevice, values: &[f16]) -> Result<Self> {
        let (driver, length) = (device.driver, size_of_val(values));
        let mut address = 0;
        device.enter()?;
        // SAFETY: as in `CudaDevice::open`.
        driver.check("taking memory of the card", unsafe { (driver.allocate)(&mut address, length) })?;
        let memory = Self { device, address };
        // SAFETY: both places are as long as is said, the device's was just allocated.
        let status = unsafe { (driver.copy_to_device)(address, values.as_ptr().cast(), length) };
        driver.check("copying to the card", status)?;
        // SAFETY: null is the stream that copies go by. ONNX Runtime's streams do not wait for it by themselves.
        driver.check("copying to the card", unsafe { (driver.wait)(null_mut()) })?;
        Ok(memory)
    }

    /// Its address on the device.
    pub fn address(&self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.address as usize)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // Where that fails there is no device any more, whose memory could be freed.
        if self.device.enter().is_ok() {
            // SAFETY: the address came from the driver and is given back once. The driver waits for work that reads it.
            unsafe { (self.device.driver.free)(self.address) };
        }
    }
}

impl Target for &'static CudaDevice {
    type Program = Program;

    const PROVIDER: Option<&'static str> = Some("CUDAExecutionProvider");

    fn program(&self, name: &str, variant: &str) -> Result<Program> {
        let key = (name.to_string(), variant.to_string());
        if let Some(program) = lock(&self.programs).get(&key) {
            return Ok(*program);
        }
        // The newest that the driver takes.
        let mut result = Err(Error::failure(format!("there is no kernel {name} {variant} for this card")));
        for kernel in self.programs_of(name, variant)? {
            result = self.make(kernel);
            if result.is_ok() {
                break;
            }
        }
        let program = result?;
        lock(&self.programs).insert(key, program);
        Ok(program)
    }

    fn launch(&self, program: Program, grid: [u32; 3], stream: *mut c_void, parameters: &mut [u64]) -> Result<()> {
        self.enter()?;
        let mut places: Vec<*mut c_void> =
            parameters.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let [x, y, z] = grid;
        let Program { function, threads, shared } = program;
        // SAFETY: the function lives as long as the process. Each parameter is given by its address and is at least as
        // long as the kernel reads; that there are as many as it takes, and of its types, is tested for every kernel.
        // The tensors behind them are ONNX Runtime's, which keeps them until the work on this stream is done.
        let status = unsafe {
            (self.driver.launch)(function.0, x, y, z, threads, 1, 1, shared, stream, places.as_mut_ptr(), null_mut())
        };
        self.driver.check("launching a kernel", status)
    }
}

#[cfg(test)]
mod tests {
    use super::CudaDevice;

    #[test]
    fn where_there_is_no_driver_the_kernels_say_so() {
        match CudaDevice::with_kernels(0) {
            Ok(device) => assert!(device.capability >= super::OLDEST),
            Err(e) => {
                let message = e.to_string();
                let reasons = ["the CUDA driver does not load: ", "CUDA error ", "it has compute capability "];
                assert!(reasons.iter().any(|reason| message.contains(reason)), "{message}");
            }
        }
    }
}
