//! The panic hook of the program.

use std::sync::Once;

use vaplan_schemas::contain::is_contained;

/// Installs a panic hook that prints nothing about contained panics: the code that contains a panic reports it as an
/// error of a file or of a thread. Every other panic is printed as before. Calls after the first do nothing, because
/// `demo` runs commands within a command.
pub(super) fn silence_contained() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !is_contained() {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use vaplan_schemas::contain::contain;

    const CHILD: &str = "VAPLAN_TEST_PANICS";

    /// Panics twice if the other test starts this test as a child process. The other test reads its standard error.
    #[test]
    fn child() {
        super::silence_contained();
        super::silence_contained();
        if std::env::var_os(CHILD).is_some() {
            contain(|| panic!("told by its caller")).unwrap_err();
            std::panic::catch_unwind(|| panic!("told by the hook")).unwrap_err();
        }
    }

    #[test]
    fn the_hook_prints_a_panic_only_if_no_caller_reports_it() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cli::panics::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("told by the hook"), "{printed}");
        assert!(!printed.contains("told by its caller"), "{printed}");
    }
}
