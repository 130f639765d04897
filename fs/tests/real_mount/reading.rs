//! ls, cat, stat, find.

use super::live::Live;

#[test]
fn keys_are_files_in_directories() {
    let live = Live::new();
    live.put("/app/color", "blue\n");
    live.put("/app/deep/er/key", "x");
    live.put("/readme", "hello\n");
    assert_eq!(live.sh("ls"), "app\nreadme\n");
    assert_eq!(live.sh("cat app/color readme"), "blue\nhello\n");
    assert_eq!(live.sh("stat -c '%F %s %a %u %h' app/color"), "regular file 5 644 0 1\n");
    assert_eq!(live.sh("stat -c '%F %a' app"), "directory 755\n");
    assert_eq!(
        live.sh("find . | sort"),
        ".\n./app\n./app/color\n./app/deep\n./app/deep/er\n./app/deep/er/key\n./readme\n"
    );
    assert!(live.sh_fails("cat nothing").contains("No such file"));
}
