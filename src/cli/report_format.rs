//! The format of a command's report.

/// Text for people, or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    /// Lines of text
    Table,
    /// One JSON object
    Json,
}

/// Prints a value as JSON of several lines.
pub(super) fn print_json(value: &impl serde::Serialize, out: &mut dyn std::io::Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}
