//! The boundary between host and library: checks pointers and sizes of structures, stores the thread's last error,
//! catches panics, and refuses forked processes.

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

    /// The failure that a panic becomes.
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

/// A structure of the header. It begins with its `struct_size`, and later versions of the header may have more fields
/// at its end: a host that was compiled with an older one gives and gets the beginning, as far as it knows it.
///
/// # Safety
/// The first field must be `struct_size: usize`, and every pattern of bits be a value of the others.
pub unsafe trait Structure: Copy {
    /// Its size in the first version of the header.
    const FIRST: usize;
}

/// Checks the first field of a structure, which is its size, and gives it.
///
/// # Safety
/// The pointer must be null or point at a structure of the header.
pub unsafe fn sized<T: Structure>(structure: *const T, name: &str) -> Result<usize, Failure> {
    pointer(structure, name)?;
    // SAFETY: the caller's promise; every structure of the header begins with its size.
    let size = unsafe { structure.cast::<usize>().read() };
    check_size::<T>(size, name)?;
    Ok(size)
}

/// Checks that a structure of such a size is one that this library knows.
pub fn check_size<T: Structure>(size: usize, name: &str) -> Result<(), Failure> {
    let own = size_of::<T>();
    let why = if size > own {
        "the host was compiled for a later version of it"
    } else if size < T::FIRST || !size.is_multiple_of(align_of::<T>()) {
        "it was not set up by its _init function"
    } else {
        return Ok(());
    };
    let text = format!("{name}: struct_size is {size}, and this library knows {} to {own}: {why}", T::FIRST);
    Err(Failure::new(Status::InvalidStructSize, text))
}

/// Reads a structure of the host; fields that it does not know have their defaults.
///
/// # Safety
/// As [`sized`].
pub unsafe fn read<T: Structure>(structure: *const T, name: &str, defaults: T) -> Result<T, Failure> {
    let mut value = defaults;
    // SAFETY: the caller's promise; the structure has as many bytes as it says, no more than a `T`.
    unsafe {
        let size = sized(structure, name)?;
        ptr::copy_nonoverlapping(structure.cast::<u8>(), (&raw mut value).cast(), size);
    }
    Ok(value)
}

/// The elements of an array of structures, all of the size that the first says.
///
/// # Safety
/// The array must have so many structures of the header, each `struct_size` long.
pub unsafe fn elements<T: Structure>(array: *mut T, count: usize, name: &str) -> Result<Vec<*mut T>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller's promise, here and below.
    let size = unsafe { sized(array, name) }?;
    let element = |index: usize| {
        let element = array.wrapping_byte_add(index.saturating_mul(size));
        if unsafe { sized(element, name) }? != size {
            return Err(Failure::new(Status::InvalidStructSize, format!("{name}: elements have different sizes")));
        }
        Ok(element)
    };
    (0..count).map(element).collect()
}

/// Writes a structure with its defaults, as much of it as a host knows that gives its size.
///
/// # Safety
/// The pointer must be null or point at memory of this size.
pub unsafe fn initialise<T: Structure>(structure: *mut T, size: usize, name: &str, value: T) -> Result<(), Failure> {
    pointer(structure, name)?;
    check_size::<T>(size, name)?;
    // SAFETY: the caller's promise.
    unsafe { write_beginning(structure, size, &value) };
    Ok(())
}

/// Writes a result into a structure, as much of it as the host knows.
///
/// # Safety
/// As [`sized`].
pub unsafe fn give_structure<T: Structure>(place: *mut T, name: &str, value: T) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe {
        let size = sized(place, name)?;
        write_beginning(place, size, &value);
    }
    Ok(())
}

/// # Safety
/// There must be memory of this size, which is at most that of a `T`.
unsafe fn write_beginning<T: Structure>(place: *mut T, size: usize, value: &T) {
    // SAFETY: the caller's promise; the size stands at the beginning.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), place.cast(), size);
        place.cast::<usize>().write(size);
    }
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

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The text of the last failure on this thread, which lives until the next.
pub fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
