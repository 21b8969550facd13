//! The memory that this process may take, so that a job which cannot fit is refused before its work.

/// Bytes of main memory that the process can have at most: its limit of address space, or the machine's memory with swap
/// space. `None` where neither is known.
pub fn limit() -> Option<u64> {
    #[cfg(unix)]
    let own = rustix::process::getrlimit(rustix::process::Resource::As).current;
    #[cfg(not(unix))]
    let own = None;
    own.into_iter().chain(machine()).min()
}

#[cfg(target_os = "linux")]
fn machine() -> Option<u64> {
    let info = rustix::system::sysinfo();
    Some((info.totalram as u64).saturating_add(info.totalswap as u64).saturating_mul(u64::from(info.mem_unit)))
}

#[cfg(not(target_os = "linux"))]
fn machine() -> Option<u64> {
    None
}
