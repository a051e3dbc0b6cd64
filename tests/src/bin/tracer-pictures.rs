//! Pictures of the report page for the documentation, of the golden recordings, so that anybody's
//! run gives the same ones. Run by `cargo xtask pictures`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tracer_tests::browser::{self, Browser, View};

/// Opens report pages in a headless Chromium and writes what they look like.
#[derive(Debug, Parser)]
#[command(name = "tracer-pictures")]
struct Options {
    /// Folder of pages
    pages: PathBuf,
    /// Folder for the pictures
    pictures: PathBuf,
}

/// A picture's name, the page, how it is shown, and what is done on it first.
const PICTURES: [(&str, &str, View, &str); 5] = [
    ("proven", "proven", View { width: 1280, height: 640, dark: false }, ""),
    ("violated-dark", "violated", View { width: 1280, height: 680, dark: true }, ""),
    (
        "filtered",
        "violated",
        View { width: 1280, height: 420, dark: false },
        "const filter = document.getElementById('filter');
         filter.value = 'aws sts';
         filter.dispatchEvent(new Event('input'));
         for (let step = 0; step < 6; step += 1) document.getElementById('zoom-in').click();
         document.getElementById('timeline').scrollIntoView();",
    ),
    (
        "narrow-hostile",
        "hostile",
        View { width: 400, height: 720, dark: false },
        "document.getElementById('timeline').scrollIntoView();",
    ),
    ("comparison", "comparison", View { width: 1000, height: 900, dark: false }, ""),
];

fn main() -> Result<()> {
    let options = Options::parse();
    let program = browser::find().context("there is no Chromium; run `cargo xtask setup`")?;
    let profile = options.pages.join("browser");
    fs::create_dir_all(&profile)?;
    fs::create_dir_all(&options.pictures)?;
    let mut browser = Browser::start(&program, &profile)?;
    for (name, page, view, action) in PICTURES {
        let page = options.pages.join(format!("{page}.html")).canonicalize()?;
        browser.open(&page, view)?;
        browser.evaluate(action)?;
        // Two frames: one in which the change is drawn, one that has it on the screen.
        let frames =
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
        browser.evaluate(&format!("{frames}.then(() => true)"))?;
        let problems = browser.problems();
        ensure!(problems.is_empty(), "{}: {}", page.display(), problems.join("\n"));
        let file = options.pictures.join(format!("{name}.png"));
        fs::write(&file, browser.screenshot()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
