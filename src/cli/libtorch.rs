//! The process-wide settings that libtorch needs. They are set here and nowhere below `cli`.
//!
//! libtorch keeps its number of threads for the whole process, and OpenMP reads how idle threads wait from the
//! environment when libtorch is loaded. A program that embeds the library decides both itself.

/// Sets the number of threads that libtorch uses within one operation, for the whole process, and returns the number
/// that libtorch then reports. Zero counts as one.
///
/// Every command that runs a network calls this function once, before libtorch's first operation. Otherwise libtorch
/// would use every core. Training shares the cores with the dataflow's workers, and with more threads than free cores a
/// step takes 3 to 30 times as long (measured). Results are equal bit for bit only for equal numbers of threads.
///
/// ```
/// assert_eq!(vaplan::cli::libtorch::set_threads(1), 1);
/// ```
pub fn set_threads(threads: usize) -> usize {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Restarts the program with OpenMP threads that sleep while they wait, unless `OMP_WAIT_POLICY` is set already.
///
/// OpenMP's threads wait by spinning otherwise, and take the cores from the dataflow's workers: `demo` took 96 to 219 s
/// instead of 22 s on two cores. OpenMP reads the variable when libtorch is loaded, which is before `main`, so the
/// program must start again. The process id stays the same. `main` calls this before anything else is done.
pub fn wait_asleep() {
    use std::os::unix::process::CommandExt;
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else {
        return;
    };
    // A program that was started through the dynamic loader (`ld-linux.so vaplan`) has the loader as its executable.
    if program
        .file_name()
        .is_none_or(|file| file.as_encoded_bytes().starts_with(b"ld-"))
    {
        return;
    }
    let mut again = std::process::Command::new(program);
    again.arg0(name).args(arguments).env(POLICY, "PASSIVE");
    // `exec` returns only if it failed. The program then goes on as it was started: its results are the same, later.
    let _ = again.exec();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_threads_count_as_one() {
        assert_eq!(set_threads(0), 1);
    }
}
