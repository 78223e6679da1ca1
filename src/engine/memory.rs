//! Gives memory that was freed back to the system.

/// Gives the memory that all threads freed back to the system, if the allocator keeps such memory.
///
/// The allocator of glibc keeps freed memory in the heap of the thread that allocated it. Reading features needs buffers of several
/// MiB, and labelling runs in other threads, so that without this call the buffers stay beside the rows of labelling until the process
/// ends: 10 to 16 MiB of 80 MiB, more in some processes than in others.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library")]
pub(super) fn give_back() {
    unsafe extern "C" {
        /// `malloc_trim(3)`.
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: glibc has this function with these types, and it may be called at any time from any thread.
    unsafe { malloc_trim(0) };
}

/// Other allocators have no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}
