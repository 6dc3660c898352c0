#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;

/// A process with this file, environment and command line.
fn sources(
    folder: &Path,
    file: Option<&str>,
    environment: &[(&'static str, &str)],
    flags: &[(Key, &str)],
) -> Sources {
    let path = folder.join("config.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let variables: HashMap<String, OsString> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), OsString::from(*value)))
        .collect();
    Sources {
        names: variables.keys().cloned().collect(),
        file: path,
        file_named: file.is_some(),
        user_home: "/users/ada".into(),
        default_home: "/users/ada/.local/share/hearth".into(),
        environment: Box::new(move |name| variables.get(name).cloned()),
        flags: flags
            .iter()
            .map(|(key, text)| (*key, (*text).to_owned()))
            .collect(),
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = Some("context = 1000\nslots = 2\n");
    let environment: &[_] = &[("HEARTH_CONTEXT", "2000")];
    let flag: &[_] = &[(Key::Context, "3000")];
    let cases = [
        (None, &[][..], &[][..], None, "default"),
        (file, &[][..], &[][..], Some(1000), "config.toml:1"),
        (file, environment, &[][..], Some(2000), "HEARTH_CONTEXT"),
        (file, environment, flag, Some(3000), "--context"),
        (None, &[][..], flag, Some(3000), "--context"),
        (
            None,
            &[("HEARTH_CONTEXT", "")][..],
            &[][..],
            None,
            "default",
        ),
    ];
    for (file, environment, flags, expected, origin) in cases {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let config = sources(folder.path(), file, environment, flags)
            .resolve()
            .unwrap();
        assert_eq!(config.engine.model.context, expected, "{origin}");
        let shown = config.origin(Key::Context).to_string();
        assert!(
            shown.ends_with(origin),
            "{shown} does not end with {origin}"
        );
        // Layers merge key by key: the higher ones do not hide what only the file says.
        assert_eq!(
            config.engine.model.slots,
            if file.is_some() { 2 } else { 4 }
        );
    }
}

#[test]
fn every_setting_can_come_from_the_file_the_environment_and_a_flag() {
    let values = [
        (Key::Host, "0.0.0.0:9000"),
        (Key::Home, "/srv/hearth"),
        (Key::Model, "qwen3"),
        (Key::ModelsDir, "/srv/models"),
        (Key::Hub, "http://mirror.lan:8080"),
        (Key::Offline, "on"),
        (Key::ShareModels, "on"),
        (Key::Name, "gpubox"),
        (
            Key::Addresses,
            "http://192.0.2.7:8321,quic://192.0.2.7:8321",
        ),
        (Key::Relay, "https://relay.example"),
        (Key::Mdns, "on"),
        (Key::DatabaseUrl, "postgres://hearth@db.example/hearth"),
        (Key::Context, "4096"),
        (Key::Slots, "8"),
        (Key::Threads, "6"),
        (Key::GpuLayers, "20"),
        (Key::Kv, "q8_0/q4_0"),
        (Key::FlashAttention, "off"),
        (Key::ParkMemory, "512MiB"),
        (Key::MemoryBudget, "8GiB"),
        (Key::KeepAlive, "never"),
        (Key::QueueLimit, "7"),
        (Key::LoadWait, "500ms"),
        (Key::Cpu, "haswell"),
        (Key::LogLevel, "debug"),
        (Key::LogFormat, "json"),
        (Key::LogFileSize, "1MiB"),
        (Key::LogFiles, "3"),
        (Key::LogPrompts, "on"),
        (Key::OtlpEndpoint, "http://127.0.0.1:4318"),
        (Key::UpdateUrl, "https://hearth.example/releases.json"),
        (Key::UpdateCheck, "on"),
    ];
    assert_eq!(
        values.map(|(key, _)| key),
        Key::ALL,
        "a setting is missing from this test"
    );
    let folder = tempfile::tempdir().unwrap();
    let file: String = values
        .iter()
        .map(|(key, text)| format!("{} = \"{text}\"\n", key.name()))
        .collect();
    let environment = values.map(|(key, text)| (key.variable(), text));
    for config in [
        sources(&folder.path().join("."), Some(&file), &[], &[])
            .resolve()
            .unwrap(),
        sources(folder.path(), None, &environment, &[])
            .resolve()
            .unwrap(),
        sources(folder.path(), None, &[], &values)
            .resolve()
            .unwrap(),
    ] {
        for (key, text) in values {
            let shown = config.shown.iter().find(|shown| shown.key == key).unwrap();
            assert_eq!(shown.value, text, "{}", key.name());
            assert_ne!(shown.origin, Origin::Default, "{}", key.name());
        }
    }
}

#[test]
fn an_unknown_key_names_itself_its_line_and_the_nearest_one() {
    let folder = tempfile::tempdir().unwrap();
    let failure = sources(
        folder.path(),
        Some("slots = 2\n\ncontxt = 8192\n"),
        &[],
        &[],
    )
    .resolve()
    .unwrap_err();
    assert_eq!(
        failure.message,
        format!(
            "{}:3: unknown key `contxt`",
            folder.path().join("config.toml").display()
        )
    );
    assert_eq!(failure.fix.as_deref(), Some("did you mean `context`?"));
    let failure = sources(folder.path(), Some("zzz = 1"), &[], &[])
        .resolve()
        .unwrap_err();
    assert!(
        failure
            .fix
            .unwrap()
            .starts_with("use one of: host, home, model,")
    );
}

#[test]
fn a_bad_value_names_its_source_and_the_accepted_form() {
    let folder = tempfile::tempdir().unwrap();
    let fails =
        |file: Option<&str>, environment: &[(&'static str, &str)], flags: &[(Key, &str)]| {
            let failure = sources(folder.path(), file, environment, flags)
                .resolve()
                .unwrap_err();
            (failure.message, failure.fix.unwrap())
        };
    let (message, fix) = fails(None, &[("HEARTH_SLOTS", "many")], &[]);
    assert_eq!(message, "HEARTH_SLOTS: `many` is not a value for slots");
    assert_eq!(fix, "use a number from 1 to 64");
    let (message, fix) = fails(None, &[], &[(Key::MemoryBudget, "8 apples")]);
    assert_eq!(
        message,
        "--memory-budget: `8 apples` is not a value for memory_budget"
    );
    assert_eq!(fix, "use `auto` or a size such as 8GiB");
    let (message, fix) = fails(None, &[], &[(Key::Context, "63")]);
    assert_eq!(message, "--context: `63` is not a value for context");
    assert_eq!(fix, "use `auto` or a number of tokens from 64 to 1048576");
    let (message, _) = fails(Some("# ours\nslots = 65"), &[], &[]);
    assert!(
        message.ends_with("config.toml:2: slots: `65` is not a value for slots"),
        "{message}"
    );
    let (message, _) = fails(Some("slots = [1]"), &[], &[]);
    assert!(
        message.ends_with("config.toml:1: slots cannot be of type array"),
        "{message}"
    );
    let (message, _) = fails(Some("slots = \n"), &[], &[]);
    assert!(message.contains("config.toml:1: "), "{message}");
}

#[test]
fn the_hub_of_other_programs_counts_where_ours_is_not_said() {
    let folder = tempfile::tempdir().unwrap();
    let hub = |environment: &[(&'static str, &str)]| {
        let config = sources(folder.path(), None, environment, &[]).resolve();
        let config = config.unwrap();
        (config.origin(Key::Hub).to_string(), config.fetch.hub)
    };
    let theirs = ("HF_ENDPOINT", "https://mirror.example/");
    let ours = ("HEARTH_HUB", "http://house.lan:8080/hub");
    assert_eq!(
        hub(&[theirs]),
        ("HF_ENDPOINT".into(), "https://mirror.example".into())
    );
    assert_eq!(
        hub(&[theirs, ours]),
        ("HEARTH_HUB".into(), "http://house.lan:8080/hub".into())
    );
}

#[test]
fn the_collector_of_other_programs_counts_where_ours_is_not_said() {
    let folder = tempfile::tempdir().unwrap();
    let collector = |environment: &[(&'static str, &str)]| {
        let config = sources(folder.path(), None, environment, &[]).resolve();
        config.unwrap().otlp_endpoint
    };
    let theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.lan:4318/");
    let off = ("HEARTH_OTLP_ENDPOINT", "none");
    assert_eq!(collector(&[]), None);
    let expected = Some("http://collector.lan:4318/".to_owned());
    assert_eq!(collector(&[theirs]), expected);
    assert_eq!(collector(&[theirs, off]), None);
}

#[test]
fn a_file_that_was_named_must_exist_and_the_usual_one_need_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = sources(folder.path(), None, &[], &[]);
    missing.file_named = true;
    assert!(
        missing
            .resolve()
            .unwrap_err()
            .message
            .contains("config.toml")
    );
    assert!(sources(folder.path(), None, &[], &[]).resolve().is_ok());
}

#[test]
fn paths_are_relative_to_whoever_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = sources(
        folder.path(),
        Some("models_dir = \"gguf\"\nhome = \"~/hearth\""),
        &[],
        &[],
    )
    .resolve()
    .unwrap();
    assert_eq!(config.models_dir, folder.path().join("gguf"));
    assert_eq!(config.home, Path::new("/users/ada/hearth"));
    let config = sources(folder.path(), None, &[("HEARTH_MODEL", "small.gguf")], &[])
        .resolve()
        .unwrap();
    assert_eq!(
        config.model,
        std::env::current_dir()
            .unwrap()
            .join("small.gguf")
            .to_str()
            .map(str::to_owned)
    );
}

#[test]
fn a_database_is_shown_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |url: &str| {
        let config = sources(folder.path(), None, &[], &[(Key::DatabaseUrl, url)]).resolve();
        let config = config.map_err(|failure| failure.to_string())?;
        let shown = config.shown.into_iter();
        let shown = shown.filter(|shown| shown.key == Key::DatabaseUrl);
        Ok::<String, String>(shown.map(|shown| shown.value).collect())
    };
    for (url, said) in [
        (
            "postgres://ada:se:cr@et@db.example/h",
            "postgres://ada@db.example/h",
        ),
        (
            "postgresql://db.example/h?password=secret",
            "postgresql://db.example/h",
        ),
        ("postgres:///h?host=/run/postgresql", "postgres:///h"),
        ("none", "none"),
    ] {
        assert_eq!(shown(url).unwrap(), said);
    }
    let wrong = shown("mysql://ada:secret@db.example/h").unwrap_err();
    assert!(
        wrong.contains("mysql://ada@db.example/h") && !wrong.contains("secret"),
        "{wrong}"
    );
}

#[test]
fn defaults_are_shown_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let config = sources(folder.path(), None, &[], &[(Key::Slots, "2")])
        .resolve()
        .unwrap();
    let shown: Vec<String> = config
        .shown
        .iter()
        .map(|shown| format!("{} = {} ({})", shown.key.name(), shown.value, shown.origin))
        .collect();
    let expected = [
        "host = 127.0.0.1:8321 (default)",
        "home = /users/ada/.local/share/hearth (default)",
        "model = ember (default)",
        "models_dir = /users/ada/.local/share/hearth/models (default)",
        "hub = https://huggingface.co (default)",
        "offline = off (default)",
        "share_models = off (default)",
        "name = auto (default)",
        "addresses = auto (default)",
        "relay = none (default)",
        "mdns = off (default)",
        "database_url = none (default)",
        "context = auto (default)",
        "slots = 2 (--slots)",
        "threads = auto (default)",
        "gpu_layers = auto (default)",
        "kv = f16 (default)",
        "flash_attention = auto (default)",
        "park_memory = auto (default)",
        "memory_budget = auto (default)",
        "keep_alive = 30m (default)",
        "queue_limit = 64 (default)",
        "load_wait = 2s (default)",
        "cpu = auto (default)",
        "log_level = auto (default)",
        "log_format = text (default)",
        "log_file_size = 10MiB (default)",
        "log_files = 5 (default)",
        "log_prompts = off (default)",
        "otlp_endpoint = none (default)",
        "update_url = none (default)",
        "update_check = off (default)",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn switches_take_what_people_write_for_on_and_off() {
    let folder = tempfile::tempdir().unwrap();
    let offline = |file: Option<&str>, environment: &[(&'static str, &str)]| {
        let config = sources(folder.path(), file, environment, &[]).resolve();
        config.map(|config| config.fetch.offline)
    };
    for (on, off) in [
        ("on", "off"),
        ("true", "false"),
        ("yes", "no"),
        ("1", "0"),
        ("True", "OFF"),
    ] {
        assert!(offline(None, &[("HEARTH_OFFLINE", on)]).unwrap(), "{on}");
        assert!(!offline(None, &[("HEARTH_OFFLINE", off)]).unwrap(), "{off}");
    }
    // In the file as TOML has it, too.
    for (file, on) in [
        ("offline = true", true),
        ("offline = false", false),
        ("offline = 1", true),
        ("offline = \"yes\"", true),
    ] {
        assert_eq!(offline(Some(file), &[]).unwrap(), on, "{file}");
    }
    let failure = offline(None, &[("HEARTH_OFFLINE", "perhaps")]).unwrap_err();
    assert_eq!(
        failure.fix.unwrap(),
        "use on or off (or true or false, yes or no, 1 or 0)"
    );
    let slots = sources(folder.path(), Some("slots = true"), &[], &[]).resolve();
    let failure = slots.unwrap_err();
    assert_eq!(failure.fix.unwrap(), "use a number from 1 to 64");
}

#[test]
fn a_variable_that_is_no_setting_is_told_with_the_one_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let warnings = |name: &'static str| {
        let config = sources(folder.path(), None, &[(name, "1")], &[]).resolve();
        config.unwrap().warnings
    };
    for (name, meant) in [
        (
            "HEARTH_PROT",
            "did you mean HEARTH_HOST (an address such as",
        ),
        ("HEARTH_CONTEX", "did you mean HEARTH_CONTEXT ("),
        ("HEARTH_OFLINE", "did you mean HEARTH_OFFLINE ("),
        ("HEARTH_CONFG", "did you mean HEARTH_CONFIG?"),
        ("HEARTH_ZZZ", "`hearth config show` lists"),
    ] {
        let told = warnings(name);
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert!(
            told[0].starts_with(name) && told[0].contains(meant),
            "{told:?}"
        );
    }
    for name in [
        "HEARTH_SLOTS",
        "HEARTH_CONFIG",
        "HEARTH_URL",
        "HEARTH_TEST_HUB",
        "HEARTH_EMBED_MODEL",
        "OLLAMA_HOST",
    ] {
        let harmless = sources(folder.path(), None, &[], &[]);
        let harmless = Sources {
            names: if name.starts_with("HEARTH") {
                vec![name.into()]
            } else {
                Vec::new()
            },
            ..harmless
        };
        assert_eq!(harmless.resolve().unwrap().warnings, [""; 0], "{name}");
    }
}
