//! A text to copy, with the button that does.

use maud::{Markup, html};

/// What to copy, under its name; `copy.js` copies it.
pub(crate) fn snippet(name: &str, text: &str) -> Markup {
    html! {
        figure {
            figcaption { (name) button.copy type="button" aria-label={ "Copy " (name) } { "Copy" } }
            pre { code { (text) } }
        }
    }
}
