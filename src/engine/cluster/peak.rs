//! The largest memory that this process had.

/// The largest resident memory of this process until now, in KiB; `None` if the system does not say.
pub(super) fn kibibytes() -> Option<u64> {
    of_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn of_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_process_has_its_largest_memory() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t   4321 kB\nVmRSS:\t   42 kB\n";
        assert_eq!(of_status(text), Some(4321));
        assert_eq!(of_status("VmRSS:\t 1 kB\n"), None);
    }
}
