//! What every call does at the border: it checks pointers and structures before it looks behind them, keeps the text of
//! what went wrong, and lets no panic out.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Status;
use super::floating_point::HostEnvironment;
use crate::error::Error;

/// Why a call cannot do what it should.
#[derive(Debug, Clone)]
pub struct Failure {
    pub status: Status,
    pub text: String,
}

impl Failure {
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// What becomes of a panic.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::new(Status::Internal, format!("a bug in motionclone: {}", message(panic)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if error.is_cancelled() {
            Status::Cancelled
        } else if error.is_input() {
            Status::InvalidInput
        } else {
            Status::Failed
        };
        Self::new(status, error.to_string())
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// The process that made the first object; 0 before.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Ties the library to this process: its threads and ONNX Runtime's are not copied by `fork`.
pub fn own_process() {
    let _ = PROCESS.compare_exchange(0, process::id(), Ordering::SeqCst, Ordering::SeqCst);
}

/// Whether this process was forked from the one that the library's objects belong to.
pub fn is_forked() -> bool {
    let owner = PROCESS.load(Ordering::SeqCst);
    owner != 0 && owner != process::id()
}

/// Runs a call that uses objects. Refused in a forked process, before it waits for a lock that another thread of the
/// parent may have held.
pub fn call(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    call_anywhere(|| {
        if is_forked() {
            return Err(Failure::new(
                Status::WrongProcess,
                "this process was forked from the one that uses the library, which alone can go on with it; start a \
                 program instead, or fork before the first engine is made",
            ));
        }
        work()
    })
}

/// Runs a call: keeps its failure's text for the thread, lets no panic out, and computes in the default floating point
/// environment.
pub fn call_anywhere(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    let _host = HostEnvironment::leave();
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::panicked(panic.as_ref())));
    let Err(failure) = result else { return Status::Ok };
    let text = CString::new(failure.text.replace('\0', " ")).unwrap_or_default();
    // A thread that is ending has no more place for it.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
    failure.status
}

fn null(name: &str) -> Failure {
    Failure::new(Status::InvalidArgument, format!("{name} is null"))
}

/// Checks that a pointer can be one to a `T`.
pub fn pointer<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(Failure::new(Status::InvalidArgument, format!("{name} is not aligned as its type needs")));
    }
    Ok(())
}

/// Checks a structure's first field, which is its size.
///
/// # Safety
/// The structure must begin with its `struct_size`, and the pointer be null or point at one.
pub unsafe fn sized<T>(structure: *const T, name: &str) -> Result<(), Failure> {
    pointer(structure, name)?;
    // SAFETY: the caller's promise; every structure of the header begins with its size.
    let size = unsafe { structure.cast::<usize>().read() };
    check_size::<T>(size, name)
}

pub fn check_size<T>(size: usize, name: &str) -> Result<(), Failure> {
    let own = size_of::<T>();
    if size == own {
        return Ok(());
    }
    Err(Failure::new(Status::InvalidStructSize, format!("{name}: struct_size is {size}, this library's is {own}")))
}

/// Reads a structure of the host.
///
/// # Safety
/// As [`sized`].
pub unsafe fn read<T: Copy>(structure: *const T, name: &str) -> Result<T, Failure> {
    // SAFETY: the caller's promise, and the size is right.
    unsafe {
        sized(structure, name)?;
        Ok(structure.read())
    }
}

/// Writes a structure with its defaults, after checking that caller and library mean the same one.
///
/// # Safety
/// The pointer must be null or point at memory for a `T`.
pub unsafe fn initialise<T>(structure: *mut T, size: usize, name: &str, value: T) -> Result<(), Failure> {
    pointer(structure, name)?;
    check_size::<T>(size, name)?;
    // SAFETY: the caller's promise.
    unsafe { structure.write(value) };
    Ok(())
}

/// Writes a result.
///
/// # Safety
/// The pointer must be null or point at memory for a `T`.
pub unsafe fn give<T>(place: *mut T, name: &str, value: T) -> Result<(), Failure> {
    pointer(place, name)?;
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// A text of the host.
///
/// # Safety
/// The pointer must be null or point at a text that ends with a zero byte and lives during the call.
pub unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|e| Failure::new(Status::InvalidArgument, format!("{name} is not UTF-8: {e}")))
}

/// A path of the host.
///
/// # Safety
/// As [`text`].
pub unsafe fn path<'a>(path: *const c_char, name: &str) -> Result<&'a Path, Failure> {
    // SAFETY: the caller's promise.
    unsafe { text(path, name) }?.map(Path::new).ok_or_else(|| null(name))
}

/// Copies a text to the host with a zero byte behind it.
///
/// # Safety
/// `buffer` must have room for `size` bytes, and `needed` be null or writable.
pub unsafe fn copy_text(text: &str, buffer: *mut c_char, size: usize, needed: *mut usize) -> Result<(), Failure> {
    let text = text.replace('\0', " ");
    if !needed.is_null() {
        // SAFETY: the caller's promise.
        unsafe { give(needed, "needed", text.len() + 1) }?;
    }
    if buffer.is_null() {
        return if needed.is_null() { Err(null("buffer")) } else { Ok(()) };
    }
    if size <= text.len() {
        let message = format!("the buffer has {size} bytes, the text needs {}", text.len() + 1);
        return Err(Failure::new(Status::BufferSize, message));
    }
    // SAFETY: the buffer has room for the text and the zero byte, as just checked.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The text of the last failure on this thread, which lives until the next.
pub fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
