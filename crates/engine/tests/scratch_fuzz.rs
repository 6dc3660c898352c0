#![allow(clippy::unwrap_used, missing_docs)]
#[path = "hostile.rs"]
mod hostile;
use hostile::*;
use hearth_engine::*;
use std::path::*;

#[tokio::test]
#[ignore]
async fn child() {
    let path = PathBuf::from(std::env::var("SCRATCH_FILE").unwrap());
    let mut catalogue = Catalogue::new(None);
    catalogue.register("m", path);
    let mut o = hearth_testkit::node::options();
    o.model.context = Some(256);
    let engine = Engine::new(o, catalogue);
    match engine.load(Some("m")).await { Err(e) => { println!("REFUSED {e}"); return; } Ok(()) => {} }
    let request = Request { max_tokens: Some(2), ..Request::new(Prompt::Text("Hello wörld 🤖 \u{1} x".into())) };
    match engine.generate(Some("m"), request).await {
        Err(e) => println!("REQ {e}"),
        Ok(mut g) => { while let Some(e) = g.next().await { if let Err(e) = e { println!("EV {e}"); return; } } println!("ANSWERED"); }
    }
}

fn main_keys() -> Vec<String> {
    let src = std::fs::read_to_string(std::env::var("ARCH_CPP").unwrap()).unwrap();
    let mut keys: Vec<String> = src.lines().filter_map(|l| { let (_, r) = l.split_once("LLM_KV_")?; let (_, r) = r.split_once('"')?; let (k, _) = r.split_once('"')?; Some(k.to_owned()) }).filter(|k| k.contains('.')).collect();
    keys.sort(); keys.dedup(); keys
}

#[test]
#[ignore]
fn drive() {
    let folder = tempfile::tempdir().unwrap();
    let base = PathBuf::from(std::env::var("SCRATCH_BASE").unwrap());
    let whole = Parts::of(&base);
    let arch = hearth_gguf::File::open(&base).unwrap().architecture().unwrap().to_owned();
    let only = std::env::var("SCRATCH_ONLY").unwrap_or_default();
    let exe = std::env::current_exe().unwrap();
    let mut n = 0;
    for key in main_keys() {
        let key = key.replace("%s", &arch);
        if !key.contains(&only) || key.starts_with("general.sampl") || key.starts_with("split.") { continue; }
        let mut cases: Vec<(String, Parts)> = Vec::new();
        for v in [0u32, 1, 2, 3, 7, 100, 4096, 1 << 20, u32::MAX] { cases.push((format!("u32 {v}"), whole.clone().number(&key, v))); }
        for v in [0f32, -1.0, f32::NAN, 1e30] { cases.push((format!("f32 {v}"), whole.clone().set(&key, 6, v.to_le_bytes()))); }
        for v in [0u8, 1] { cases.push((format!("bool {v}"), whole.clone().set(&key, 7, [v]))); }
        cases.push(("text".into(), whole.clone().set(&key, 8, text(b"yarn"))));
        cases.push(("text \\xff".into(), whole.clone().set(&key, 8, text(b"\xff\0x"))));
        let one = |v: u32| v.to_le_bytes().to_vec();
        for (name, v) in [("[]", vec![]), ("[1,1]", vec![one(1), one(1)]), ("[0,7]", vec![one(0), one(7)]), ("[9;4]", vec![one(9); 4]), ("[1<<20;2]", vec![one(1<<20); 2])] { cases.push((format!("arr {name}"), whole.clone().set(&key, 9, array(5, &v)))); }
        let mut gone = whole.clone(); gone.metadata.retain(|m| m.0 != key); cases.push(("gone".into(), gone));
        for (name, parts) in cases {
            let path = folder.path().join("x.gguf");
            std::fs::write(&path, parts.bytes()).unwrap();
            if hearth_gguf::Model::open(&path).is_err() { continue; }
            n += 1;
            let out = std::process::Command::new("timeout").arg("60").arg(&exe).args(["child", "--ignored", "--exact", "--nocapture", "--test-threads=1"]).env("SCRATCH_FILE", &path).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            let fine = ["REFUSED", "REQ ", "EV ", "ANSWERED"].iter().any(|w| text.contains(w));
            if !fine || out.status.code() != Some(0) {
                let tail: Vec<&str> = text.lines().filter(|l| l.contains("GGML_ASSERT") || l.contains("abort") || l.contains("terminate") || l.contains("what()") || l.contains("foreign")|| l.contains(".cpp:") || l.contains(".c:")).collect();
                println!("KILLED {key} = {name}: {:?} {:?}", out.status, tail.iter().take(3).collect::<Vec<_>>());
                std::fs::copy(&path, format!("/tmp/killed-{n}.gguf")).unwrap();
            } else if only.len() > 3 { println!("{key} = {name}: {}", text.lines().find(|l| l.contains("REFUSED") || l.contains("REQ") || l.contains("ANSW") || l.contains("EV ")).unwrap_or("").chars().take(160).collect::<String>()); }
        }
    }
    println!("{n} cases");
}
