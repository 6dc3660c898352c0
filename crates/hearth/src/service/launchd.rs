//! launchd: the property list (launchd.plist(5)) and `launchctl`.

use std::path::Path;

use super::{Call, MARK, Owner, Service, State};
use crate::log_file;

/// The service's label.
pub const LABEL: &str = "hearth.node";
/// Name of its property list.
pub const FILE: &str = "hearth.node.plist";

pub fn property_list(service: &Service) -> String {
    let arguments: String = service
        .arguments()
        .iter()
        .map(|argument| format!("\t\t<string>{}</string>\n", escaped(argument)))
        .collect();
    let errors = log_file::folder(&service.home).join("node.err");
    let mut keys = format!(
        "\
\t<key>Label</key>
\t<string>{LABEL}</string>
\t<key>ProgramArguments</key>
\t<array>
{arguments}\t</array>
\t<key>RunAtLoad</key>
\t<true/>
\t<!-- As systemd's Restart=on-failure. -->
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
\t<key>ThrottleInterval</key>
\t<integer>10</integer>
\t<key>ExitTimeOut</key>
\t<integer>60</integer>
\t<!-- Somebody waits for its answers: no throttling of processor or disk. -->
\t<key>ProcessType</key>
\t<string>Interactive</string>
\t<key>SoftResourceLimits</key>
\t<dict>
\t\t<key>NumberOfFiles</key>
\t\t<integer>65536</integer>
\t</dict>
\t<key>Umask</key>
\t<integer>63</integer>
\t<key>StandardErrorPath</key>
\t<string>{}</string>
",
        escaped(&errors.display().to_string())
    );
    if let Owner::System(user) = &service.owner {
        if let Some(user) = user {
            keys += &format!(
                "\t<key>UserName</key>\n\t<string>{}</string>\n",
                escaped(user)
            );
        }
        keys += "\
\t<key>EnvironmentVariables</key>
\t<dict>
\t\t<key>XDG_CONFIG_HOME</key>
\t\t<string>/usr/local/etc</string>
\t</dict>
";
    }
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- {MARK} -->
<plist version=\"1.0\">
<dict>
{keys}</dict>
</plist>
"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn domain(owner: &Owner, uid: &str) -> String {
    match owner {
        Owner::User => format!("gui/{uid}"),
        Owner::System(_) => "system".into(),
    }
}

pub fn question(owner: &Owner, uid: &str) -> Call {
    let target = format!("{}/{LABEL}", domain(owner, uid));
    Call::new("launchctl", ["print", &target])
}

/// `launchctl print` is made for people; it has said `state = running` and `pid = N` on lines of their own since 10.10.
pub fn state(answer: &str) -> State {
    let value = |name: &str| {
        let mut lines = answer.lines();
        lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "))
    };
    let words = value("state").unwrap_or("not loaded");
    State {
        // What is loaded was loaded because its property list says RunAtLoad.
        enabled: !answer.is_empty(),
        active: words == "running",
        words: words.to_owned(),
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        unit: value("path").map(Into::into),
    }
}

pub fn start(service: &Service, uid: &str, unit: &Path) -> Vec<Call> {
    let domain = domain(&service.owner, uid);
    let target = format!("{domain}/{LABEL}");
    let (home, logs) = (&service.home, log_file::folder(&service.home));
    let folders = [home.display().to_string(), logs.display().to_string()];
    // launchd opens the file for standard error and makes no folder for it.
    let folders = match &service.owner {
        Owner::System(Some(user)) => {
            let [home, logs] = &folders;
            Call::new("install", ["-d", "-m", "700", "-o", user, home, logs])
        }
        _ => Call::new("mkdir", ["-p", &folders[1]]),
    };
    vec![
        folders,
        Call::new("launchctl", ["bootout", &target]).may_fail(),
        Call::new("launchctl", ["enable", &target]),
        Call::new(
            "launchctl",
            ["bootstrap", &domain, &unit.display().to_string()],
        ),
    ]
}

pub fn stop(owner: &Owner, uid: &str) -> [Vec<Call>; 2] {
    let target = format!("{}/{LABEL}", domain(owner, uid));
    [
        vec![Call::new("launchctl", ["bootout", &target]).may_fail()],
        Vec::new(),
    ]
}
