//! Values of an instance's parameters.

use std::ffi::{CStr, c_char, c_int};

use crate::effect::parameters::{Kind, named};
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Host, Result, c_text, check, entry};
use crate::ofx::sys::{self, property};

/// The parameters of an instance.
pub struct Values<'a> {
    host: &'a Host,
    set: sys::Handle,
}

impl<'a> Values<'a> {
    /// Those of an effect.
    pub fn of(host: &'a Host, effect: sys::Handle) -> Result<Self> {
        let (get, mut set) = (entry(host.effect.get_param_set)?, std::ptr::null_mut());
        // SAFETY: the handle is the host's, here and below.
        check(unsafe { get(effect, &mut set) })?;
        Ok(Self { host, set })
    }

    fn handle(&self, name: &CStr) -> Result<(sys::Handle, sys::Handle)> {
        let (mut parameter, mut properties) = (std::ptr::null_mut(), std::ptr::null_mut());
        let get = entry(self.host.parameter.get_handle)?;
        // SAFETY: as above.
        check(unsafe { get(self.set, name.as_ptr(), &mut parameter, &mut properties) })?;
        Ok((parameter, properties))
    }

    /// The value of a whole number, a choice, or a switch; its default where the host has none.
    pub fn int(&self, name: &CStr) -> i32 {
        let read = || -> Result<i32> {
            let mut value: c_int = 0;
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of these types are read into one int.
            check(unsafe { get(handle, &mut value as *mut c_int) }).map(|()| value)
        };
        read().unwrap_or_else(|_| match named(name).map(|parameter| parameter.kind) {
            Some(Kind::Int { default, .. } | Kind::Choice(_, default)) => default,
            Some(Kind::Switch(default)) => i32::from(default),
            _ => 0,
        })
    }

    pub fn switch(&self, name: &CStr) -> bool {
        self.int(name) != 0
    }

    /// The value of a number; its default where the host has none, or none that is a number.
    pub fn double(&self, name: &CStr) -> f64 {
        let read = || -> Result<f64> {
            let mut value = f64::NAN;
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of this type are read into one double.
            check(unsafe { get(handle, &mut value as *mut f64) }).map(|()| value)
        };
        read().ok().filter(|value| value.is_finite()).unwrap_or_else(|| {
            match named(name).map(|parameter| parameter.kind) {
                Some(Kind::Double { default, .. }) => default,
                _ => 0.0,
            }
        })
    }

    /// The value of a text.
    pub fn text(&self, name: &CStr) -> String {
        let read = || -> Result<String> {
            let mut value: *mut c_char = std::ptr::null_mut();
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of this type are read into one pointer, whose text is copied before the next call.
            check(unsafe { get(handle, &mut value as *mut *mut c_char) })?;
            // SAFETY: texts of the host end with a zero byte.
            Ok(if value.is_null() {
                String::new()
            } else {
                unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned()
            })
        };
        read().unwrap_or_default()
    }

    pub fn set_int(&self, name: &CStr, value: i32) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        // SAFETY: parameters of these types are set with one int.
        check(unsafe { set(handle, value as c_int) })
    }

    pub fn set_double(&self, name: &CStr, value: f64) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        // SAFETY: parameters of this type are set with one double.
        check(unsafe { set(handle, value) })
    }

    pub fn set_text(&self, name: &CStr, value: &str) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        let value = c_text(value);
        // SAFETY: parameters of this type are set with one text, which the host copies.
        check(unsafe { set(handle, value.as_ptr()) })
    }

    /// Whether the user may change a parameter.
    pub fn enable(&self, name: &CStr, enabled: bool) -> Result<()> {
        let (_, properties) = self.handle(name)?;
        Properties::of(self.host, properties).set_int(property::PARAM_ENABLED, 0, i32::from(enabled))
    }
}
