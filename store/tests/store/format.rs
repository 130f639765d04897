//! docs/FORMAT.md knows the files that it specifies.

use std::path::Path;

/// Whoever changes one of these changes the document, or at least reads it.
const SPECIFIED: [&str; 17] = [
    "src/schema.rs",
    "src/schema/lease.rs",
    "src/schema/state.rs",
    "src/schema/upload.rs",
    "src/schema/version.rs",
    "src/escape.rs",
    "src/command.rs",
    "src/command/compare.rs",
    "src/command/range.rs",
    "src/command/tag.rs",
    "src/command/upload.rs",
    "src/schema/alarm.rs",
    "src/schema/auth.rs",
    "src/command/auth.rs",
    "src/command/body.rs",
    "src/schema/member.rs",
    "src/command/member.rs",
];

#[test]
fn the_format_document_names_the_checksum_of_each_file_that_it_specifies() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(crate_dir.join("../docs/FORMAT.md")).unwrap();
    let mut missing = Vec::new();
    for path in SPECIFIED {
        let source = std::fs::read(crate_dir.join(path)).unwrap();
        let wanted = format!("| `store/{path}` | {:08x} |", crc32c::crc32c(&source));
        if !document.contains(&wanted) {
            missing.push(wanted);
        }
    }
    assert!(
        missing.is_empty(),
        "docs/FORMAT.md lacks these lines; read what changed, change the document, then them:\n{}",
        missing.join("\n")
    );
}
