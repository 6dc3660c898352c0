//! The manual.

use std::process::Command;

use crate::household::Household;

#[test]
fn every_command_has_a_page_that_a_formatter_takes() {
    let household = Household::new();
    household.hearth(&["man", "--out", "pages"]).ok();
    let folder = household.path().join("pages");
    let mut pages: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for page in [
        "hearth.1",
        "hearth-serve.1",
        "hearth-service-install.1",
        "hearth-logs.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    let serve = std::fs::read_to_string(folder.join("hearth-serve.1")).unwrap();
    assert!(
        serve.contains("EXAMPLES") && serve.contains("memory"),
        "{serve}"
    );

    let linters: [(&str, &[&str]); 2] = [
        ("groff", &["-ww", "-man", "-z", "-Tutf8", "-K", "utf8"]),
        ("mandoc", &["-T", "lint", "-W", "error"]),
    ];
    for (program, arguments) in linters {
        if Command::new(program).arg("-V").output().is_err()
            && Command::new(program).arg("--version").output().is_err()
        {
            eprintln!("skipped: {program} is not here");
            continue;
        }
        for page in &pages {
            let output = Command::new(program)
                .args(arguments)
                .arg(folder.join(page))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.trim().is_empty(),
                "{program} {page}: {said}"
            );
        }
    }
    let mut one = household.command(&["man"]);
    let output = one.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    let one = String::from_utf8(output.stdout).unwrap();
    assert!(one.contains(".TH hearth 1 2023-11-14"), "{one}");
}
