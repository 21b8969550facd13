//! The processor's floating point environment. A host may let operations trap, round in another direction or take small
//! numbers for zero; the library computes as its language promises, and gives the host its own back.

/// The environment of the calling thread, given back when this is dropped.
pub struct HostEnvironment(u64);

impl HostEnvironment {
    /// Sets the default environment until the end of this value: no traps, rounding to nearest, numbers close to zero
    /// as they are.
    pub fn leave() -> Self {
        let host = get();
        set(DEFAULT);
        Self(host)
    }
}

impl Drop for HostEnvironment {
    fn drop(&mut self) {
        set(self.0);
    }
}

/// All exceptions masked, none raised.
#[cfg(target_arch = "x86_64")]
const DEFAULT: u64 = 0x1f80;
#[cfg(not(target_arch = "x86_64"))]
const DEFAULT: u64 = 0;

#[cfg(target_arch = "x86_64")]
fn get() -> u64 {
    let mut value = 0_u32;
    // SAFETY: the instruction writes the register to four bytes of ours.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value.into()
}

#[cfg(target_arch = "x86_64")]
fn set(value: u64) {
    let value = value as u32;
    // SAFETY: the value is the default or was read from the register, so no reserved bit is set.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn get() -> u64 {
    let value;
    // SAFETY: the instruction reads a register that every program may read.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn set(value: u64) {
    // SAFETY: the value is the default or was read from the register.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn get() -> u64 {
    DEFAULT
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set(_: u64) {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_its_own_environment_back() {
        // Denormals are zero, results flush to zero, rounding up, division by zero traps.
        let odd = 0x1f80 | 0x8040 | 0x4000;
        let odd = odd & !0x0200;
        let before = get();
        set(odd);
        let host = HostEnvironment::leave();
        let inside = get();
        drop(host);
        let behind = get();
        set(before);
        assert_eq!((inside, behind), (DEFAULT, odd));
    }
}
