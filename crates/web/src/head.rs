//! What every page begins with: its head, and the ways to the others.

use maud::{Markup, html};

use crate::asset::address;

/// The head of a page, with the assets that are its scripts.
pub(crate) fn head(title: &str, description: &str, scripts: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            title { (title) }
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="description" content=(description);
            meta name="color-scheme" content="light dark";
            link rel="icon" href=(address("hearth.svg")) type="image/svg+xml";
            link rel="stylesheet" href=(address("hearth.css"));
            @for script in scripts { script src=(address(script)) defer {} }
        }
    }
}

/// The pages there are.
const PAGES: [(&str, &str); 4] = [
    ("/", "Chat"),
    ("/memories", "Memory"),
    ("/models", "Models"),
    ("/household", "Household"),
];

/// The ways to the other pages.
pub(crate) fn ways(here: &str) -> Markup {
    html! {
        nav.ways aria-label="Pages of Hearth" {
            @for (path, name) in PAGES.into_iter().filter(|(path, _)| *path != here) { a href=(path) { (name) } }
        }
    }
}
