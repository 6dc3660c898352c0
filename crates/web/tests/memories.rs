//! The page of memories: what is there, what is said where nothing is, and texts that stay texts.

use hearth_protocol::memory::{Found, Hit, Listed, Memory, Stats, Why};
use hearth_web::{Asked, Shown};

fn stats() -> Stats {
    Stats {
        memories: 512,
        cold: 3,
        pinned: 1,
        superseded: 4,
        withdrawn: 2,
        projects: vec![(Some("shop & co".into()), 12), (None, 500)],
        encoder: Some("minilm <1>".into()),
        words_only: None,
        unencoded: 7,
        database_bytes: 1,
        vector_bytes: 1,
        scanned: 509,
        exact_until: 50_000,
        approximate: None,
    }
}

fn memory(text: &str) -> Memory {
    Memory {
        id: "mem-0123456789abcdef0123456789abcdef".into(),
        text: text.into(),
        kind: "fact".into(),
        project: Some("shop & co".into()),
        tags: vec!["a b".into()],
        confidence: 0.35,
        pinned: true,
        source: Some("a <tool>".into()),
        written: "2026-03-04T05:06:07Z".parse().expect("a time"),
        read: None,
        reads: 0,
        superseded: None,
        superseded_by: None,
        supersedes: vec!["mem-ffffffffffffffffffffffffffffffff".into()],
        related: Vec::new(),
    }
}

fn page(asked: &Asked, shown: &Shown) -> String {
    hearth_web::memories("127.0.0.1:8321", asked, Ok(&stats()), shown)
}

#[track_caller]
fn has(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is not in {page}");
    }
}

#[test]
fn a_list_has_its_pages_filters_and_state() {
    let asked = Asked {
        project: "shop & co".into(),
        after: "mem-9".into(),
        ..Asked::default()
    };
    let shown = Shown::Listed(Listed {
        memories: vec![memory("We deploy on Fridays")],
        count: 1,
        next: Some("mem-next".into()),
    });
    has(
        &page(&asked, &shown),
        &[
            "512 memories, 1 pinned, 3 cold, 4 superseded, 2 withdrawn",
            "encoder minilm &lt;1&gt;",
            "found by meaning and words, exactly among 509 vectors",
            ", 7 being encoded",
            "<option value=\"shop &amp; co\" selected>shop &amp; co (12)</option>",
            "We deploy on Fridays",
            "href=\"/memories?project=shop%20%26%20co&amp;after=mem%2Dnext\">Older<",
            "href=\"/memories?project=shop%20%26%20co\">Newest<",
            "href=\"/memories?project=shop%20%26%20co&amp;tag=a%20b\">#a b<",
            "35 % sure",
            "<time datetime=\"2026-03-04T05:06:07Z\" title=\"2026-03-04T05:06:07Z\">2026-03-04</time>",
            "aria-pressed=\"true\"",
        ],
    );
}

#[test]
fn a_text_stays_a_text() {
    let hostile = "<script>alert(1)</script>\n</textarea><b onload=\"x\">";
    for shown in [
        Shown::Listed(Listed {
            memories: vec![memory(hostile)],
            ..Listed::default()
        }),
        Shown::One(Box::new(memory(hostile))),
        Shown::Refused(hostile.into()),
    ] {
        let page = page(&Asked::default(), &shown);
        assert!(
            !page.contains("<script>alert") && !page.contains("</textarea><b"),
            "{page}"
        );
        has(&page, &["&lt;script&gt;alert(1)"]);
        assert!(!page.contains("style="), "the page's policy refuses styles");
    }
    let asked = Asked {
        query: hostile.into(),
        ..Asked::default()
    };
    let page = page(&asked, &Shown::Found(Found::default()));
    assert!(!page.contains("<script>alert"), "{page}");
}

#[test]
fn a_search_says_how_well_and_why() {
    let asked = Asked {
        query: "when do we deploy".into(),
        ..Asked::default()
    };
    let hit = Hit {
        memory: memory("We deploy on Fridays"),
        score: 0.834,
        why: Some(Why {
            similarity: Some(0.63),
            words: None,
            recency: 0.98,
            pinned: 1.1,
            cold: true,
        }),
    };
    let shown = Shown::Found(Found {
        memories: vec![hit],
        count: 1,
        words_only: None,
    });
    has(
        &page(&asked, &shown),
        &[
            "value=\"when do we deploy\"",
            "1 memory fits",
            "score 0.83",
            "<dd>0.63</dd>",
            "<dd>none</dd>",
            "<dd>× 0.98</dd>",
            "<dd>× 1.10</dd>",
            "was cold",
        ],
    );
    let nothing = page(&asked, &Shown::Found(Found::default()));
    has(&nothing, &["Nothing was found for “when do we deploy”"]);
}

#[test]
fn one_memory_shows_all_there_is_to_know() {
    let text = "\n  first\nlast";
    let whole = page(&Asked::default(), &Shown::One(Box::new(memory(text))));
    has(
        &whole,
        &[
            "mem-0123456789abcdef0123456789abcdef",
            "a &lt;tool&gt;",
            "2026-03-04 05:06",
            "not yet",
            "Took the place of",
            "href=\"/memories?id=mem%2Dffffffffffffffffffffffffffffffff\"",
            "value=\"0.35\"",
            // A parser drops the first line end of a field.
            ">\n\n  first\nlast</textarea>",
        ],
    );
    let mut old = memory("old");
    old.superseded = Some(old.written);
    old.superseded_by = Some("mem-newer".into());
    let old = page(&Asked::default(), &Shown::One(Box::new(old)));
    has(
        &old,
        &["Superseded on", "href=\"/memories?id=mem%2Dnewer\""],
    );
    assert!(!old.contains("id=\"edit\""), "it is not changed any more");
}

#[test]
fn a_newcomer_is_told_what_to_do_first() {
    let empty = Stats {
        memories: 0,
        cold: 0,
        pinned: 0,
        superseded: 0,
        withdrawn: 0,
        projects: Vec::new(),
        encoder: None,
        words_only: Some("there is no encoder; fetch <one>".into()),
        unencoded: 0,
        database_bytes: 0,
        vector_bytes: 0,
        scanned: 0,
        exact_until: 50_000,
        approximate: None,
    };
    let shown = Shown::Listed(Listed::default());
    let page = hearth_web::memories("127.0.0.1:9000", &Asked::default(), Ok(&empty), &shown);
    has(
        &page,
        &[
            "Nothing is remembered yet",
            "hearth memory add",
            "hearth mcp",
            "http://127.0.0.1:9000/mcp",
            "There is no encoder; fetch &lt;one&gt;",
        ],
    );
    let broken = hearth_web::memories("x:1", &Asked::default(), Err("the disk <is> full"), &shown);
    has(&broken, &["the disk &lt;is&gt; full"]);
}

#[test]
fn fields_take_whole_texts_and_tags_of_every_kind() {
    let tagged = Memory {
        tags: vec!["a b".into(), "#c".into(), "d, \"e\"".into()],
        ..memory("text")
    };
    let whole = page(&Asked::default(), &Shown::One(Box::new(tagged)));
    has(
        &whole,
        &["value=\"a b, &quot;#c&quot;, &quot;d, &quot;&quot;e&quot;&quot;&quot;\""],
    );
    assert!(
        !whole.contains("maxlength"),
        "what is pasted would be cut silently"
    );
    let list = page(&Asked::default(), &Shown::Listed(Listed::default()));
    assert!(
        !list.contains("maxlength"),
        "what is pasted would be cut silently"
    );
}
