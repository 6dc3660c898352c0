//! What every page begins with.

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
