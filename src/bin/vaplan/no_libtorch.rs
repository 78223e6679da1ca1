//! Keeps libtorch out of `vaplan`.
//!
//! The library contains the code of all commands, so its archive refers to the C functions of `torch-sys` even in a program
//! that never calls them. The linker would load their object files for that, and the static initialisers of these files
//! need libtorch. `build.rs` therefore writes an assembly file that defines each of these names as a jump to
//! [`libtorch_was_called`]. The object file of this program comes first on the command line of the linker, so the archive
//! of `torch-sys` is not loaded.
#![expect(unsafe_code, reason = "global_asm! defines symbols")]

/// A command of this program called libtorch. The command belongs to `vaplan-torch`: see `Cli::needs_libtorch`.
extern "C" fn libtorch_was_called() -> ! {
    vaplan::cli::stderr::tell(
        "a command called libtorch, which this program is not linked to: please report this bug",
    );
    std::process::abort()
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".text", "vaplan_no_libtorch:", "jmp {}", sym libtorch_was_called);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".text", "vaplan_no_libtorch:", "b {}", sym libtorch_was_called);

core::arch::global_asm!(include_str!(concat!(env!("OUT_DIR"), "/no_libtorch.s")));
