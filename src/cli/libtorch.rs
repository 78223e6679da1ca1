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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_threads_count_as_one() {
        assert_eq!(set_threads(0), 1);
    }
}
