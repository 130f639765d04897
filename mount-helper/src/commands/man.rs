//! `revfs man`: the manual pages, made from what the command line itself says.

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, ValueHint};
use clap_mangen::Man;

use crate::args::Cli;
use crate::error::{Failure, Result};
use crate::output::Output;

/// Print a manual page: of revfs, or of one of its commands
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs man | man -l -
  revfs man snapshot restore | man -l -
  revfs man --all /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command, as `mount` or `snapshot restore`; else the page of the program
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,

    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "command")]
    all: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs, output: &mut Output) -> Result<()> {
    if let Some(directory) = &args.all {
        for (name, page) in pages()? {
            write(directory, &name, &page)?;
        }
        return Ok(());
    }
    let words = ["revfs"].into_iter().chain(args.command.iter().map(String::as_str));
    let name = words.collect::<Vec<_>>().join("-");
    let mut pages = pages()?.into_iter();
    let Some((_, page)) = pages.find(|(known, _)| *known == name) else {
        return Err(Failure::usage(format!("there is no page {name}"))
            .hint("revfs --help names the commands"));
    };
    output.bytes(&page)?;
    output.finish()
}

fn write(directory: &Path, name: &str, page: &[u8]) -> Result<()> {
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page)
        .map_err(|error| Failure::caused(format!("cannot write '{}'", path.display()), &error))
}

/// What every page of a command ends with.
const SEE_ALSO: &str = ".SH \"SEE ALSO\"
\\fBrevfs\\fR(1): hidden names, exit status
";

/// What only the page of the program says.
const HERE: &str = r#".SH "HIDDEN NAMES"
They are in every directory of a mount (where it says root, in that one) and never listed.
.TP
\fB@rev/\fR\fIN\fR\fB/\fR
The directory as of revision \fIN\fR, read-only. \fBls \-t @rev\fR lists the revisions that touched it, newest first.
.TP
\fB@time/\fR\fIT\fR\fB/\fR
The \fB@rev/\fR\fIN\fR of that moment: 2026\-11\-22T10:00:00Z, 2026\-11\-22, \-10m, \-2h, \-7d.
.TP
\fB@history/\fR\fINAME\fR\fB/\fR
Every stored version of \fINAME\fR, a file each.
.TP
\fB@watch\fR, \fB@watch.\fR\fIN\fR
Reading it waits for changes of the directory and all below: one line of JSON each, from now or from revision \fIN\fR on.
.TP
\fB@txn/\fR\fINAME\fR\fB/\fR (root)
\fBmkdir\fR begins a transaction, a private copy of the tree; \fBtouch @txn/\fR\fINAME\fR\fB/@commit\fR makes one revision of it.
.TP
\fB@status\fR (root)
The state of the node and of the mount, as JSON.
.TP
\fB@keys/\fR (root)
Every key by its exact bytes.
.SH "EXIT STATUS"
.TP
\fB0\fR
done
.TP
\fB1\fR
the key, path or mount does not exist, or the operation failed
.TP
\fB2\fR
the command line is wrong
.TP
\fB3\fR
a condition does not hold; nothing was changed
.TP
\fB4\fR
no node was found, or it does not answer; nothing was changed
.TP
\fB5\fR
the change was sent, and whether it happened is not known
.TP
\fB6\fR
\fBrevfs serve\fR: this member was removed from its cluster for ever
.SH EXAMPLES
.nf
revfs up ~/conf
ls \-t ~/conf/app/@rev | head
diff \-r ~/conf/app/@rev/41 ~/conf/app
revfs restore ~/conf/app \-\-to 41
revfs snapshot save conf.snapshot \-\-of ~/conf
.fi
"#;

/// Name and text of each page: of the program, its commands, and theirs.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut cli = Cli::command();
    cli.build();
    let about = "a directory whose every change is a revision that you can go back to";
    let mut pages = Vec::new();
    let program = cli.clone().override_help(None).about(about).long_about(
        "revfs is a replicated, versioned key-value store that is mounted: keys are files, every change is a \
         revision, and the past is in the directory. One program is the node, its mount and the command line.",
    );
    pages.push(("revfs".to_owned(), page(program, HERE)?));
    add_pages(&cli, "revfs", &mut pages)?;
    Ok(pages)
}

fn add_pages(of: &clap::Command, prefix: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for command in of.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("{prefix}-{}", command.get_name());
        let leaked: &'static str = Box::leak(name.clone().into_boxed_str());
        let own = command.clone().name(leaked).display_name(leaked);
        pages.push((name.clone(), page(own, SEE_ALSO)?));
        add_pages(command, &name, pages)?;
    }
    Ok(())
}

fn page(mut command: clap::Command, end: &str) -> Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend(b".SH SYNOPSIS\n.nf\n");
    for line in usage.trim_start_matches("Usage:").lines() {
        page.extend(escaped(line.trim()).into_bytes());
        page.push(b'\n');
    }
    page.extend(b".fi\n");
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if command.get_after_help().is_some() || command.get_after_long_help().is_some() {
        let mut notes = Vec::new();
        man.render_extra_section(&mut notes)?;
        let notes = String::from_utf8_lossy(&notes).replacen(".SH EXTRA", ".SH NOTES\n.nf", 1);
        page.extend(notes.trim_end().bytes());
        page.extend(b"\n.fi\n");
    }
    page.extend(end.as_bytes());
    Ok(page)
}

/// A line as roff shows it as it is.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of `mount` is the one of mount(8)'s options too.
    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let pages = pages().unwrap();
        let text = |name: &str| {
            let (_, page) = pages.iter().find(|(known, _)| known == name).expect(name);
            String::from_utf8(page.clone()).unwrap()
        };
        let mount = text("revfs-mount");
        for option in crate::mount8::names() {
            let named = option.replace('-', "\\-");
            assert!(mount.contains(&named), "{option}");
        }
        assert!(mount.contains("fstab"));
        let shown = |command: &&clap::Command| !command.is_hide_set();
        for command in Cli::command().get_subcommands().filter(shown) {
            let named = format!("revfs\\-{}(1)", command.get_name().replace('-', "\\-"));
            assert!(text("revfs").contains(&named), "{named}");
        }
        assert!(text("revfs-snapshot-restore").contains("bump\\-revision"));
        assert!(mount.contains("revfs mount [OPTIONS] <ENDPOINTS|FILE> <DIR>"), "{mount}");
        for (name, page) in &pages {
            let page = String::from_utf8_lossy(page);
            for referred in page.match_indices("(1)").map(|(at, _)| &page[..at]) {
                let word = referred.rsplit([' ', '\n']).next().unwrap_or_default();
                let word = word.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-");
                assert!(pages.iter().any(|(known, _)| *known == word), "{name}: {word}(1)");
            }
        }
    }
}
