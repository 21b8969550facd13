//! Property sets: how OpenFX says everything that is not a pixel.

use std::ffi::{CStr, c_void};

use crate::ofx::suites::{Host, Result, c_text, check, entry};
use crate::ofx::sys;

/// A property set of the host.
#[derive(Clone, Copy)]
pub struct Properties<'a> {
    host: &'a Host,
    handle: sys::Handle,
}

impl<'a> Properties<'a> {
    /// The set behind a handle that the host gave.
    pub fn of(host: &'a Host, handle: sys::Handle) -> Self {
        Self { host, handle }
    }

    pub fn int(&self, name: &CStr, index: i32) -> Result<i32> {
        let (get, mut value) = (entry(self.host.property.get_int)?, 0);
        // SAFETY: the handle is the host's, here and below; the host writes one value to the place given.
        check(unsafe { get(self.handle, name.as_ptr(), index, &mut value) }).map(|()| value)
    }

    pub fn double(&self, name: &CStr, index: i32) -> Result<f64> {
        let (get, mut value) = (entry(self.host.property.get_double)?, 0.0);
        // SAFETY: as above.
        check(unsafe { get(self.handle, name.as_ptr(), index, &mut value) }).map(|()| value)
    }

    pub fn pointer(&self, name: &CStr) -> Result<*mut c_void> {
        let (get, mut value) = (entry(self.host.property.get_pointer)?, std::ptr::null_mut());
        // SAFETY: as above.
        check(unsafe { get(self.handle, name.as_ptr(), 0, &mut value) }).map(|()| value)
    }

    pub fn text(&self, name: &CStr, index: i32) -> Result<String> {
        let (get, mut value) = (entry(self.host.property.get_string)?, std::ptr::null_mut());
        // SAFETY: as above; the text lives until the next call with this set, and is copied before.
        check(unsafe { get(self.handle, name.as_ptr(), index, &mut value) })?;
        if value.is_null() {
            return Ok(String::new());
        }
        // SAFETY: texts of the host end with a zero byte.
        Ok(unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }

    /// Several numbers; none when any is missing.
    pub fn ints<const N: usize>(&self, name: &CStr) -> Result<[i32; N]> {
        let mut values = [0; N];
        for (index, value) in values.iter_mut().enumerate() {
            *value = self.int(name, index as i32)?;
        }
        Ok(values)
    }

    /// Several numbers; none when any is missing.
    pub fn doubles<const N: usize>(&self, name: &CStr) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        for (index, value) in values.iter_mut().enumerate() {
            *value = self.double(name, index as i32)?;
        }
        Ok(values)
    }

    pub fn set_int(&self, name: &CStr, index: i32, value: i32) -> Result<()> {
        let set = entry(self.host.property.set_int)?;
        // SAFETY: the handle is the host's, here and below; texts are copied by the host.
        check(unsafe { set(self.handle, name.as_ptr(), index, value) })
    }

    pub fn set_double(&self, name: &CStr, index: i32, value: f64) -> Result<()> {
        let set = entry(self.host.property.set_double)?;
        // SAFETY: as above.
        check(unsafe { set(self.handle, name.as_ptr(), index, value) })
    }

    pub fn set_text(&self, name: &CStr, index: i32, value: &str) -> Result<()> {
        let (set, value) = (entry(self.host.property.set_string)?, c_text(value));
        // SAFETY: as above.
        check(unsafe { set(self.handle, name.as_ptr(), index, value.as_ptr()) })
    }

    /// A list of texts, one after another.
    pub fn set_texts(&self, name: &CStr, values: &[&str]) -> Result<()> {
        values.iter().enumerate().try_for_each(|(index, value)| self.set_text(name, index as i32, value))
    }
}
