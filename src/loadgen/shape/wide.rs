//! Shape `wide`: JSON like Windows events. About 20 fields that all events have and 8 to 20 that depend on the kind of
//! event; some names carry numbers in one kind and text in another, which stores with one type per name refuse.

use crate::loadgen::rng::Rng;
use crate::loadgen::shape::text::{
    StampCache, push_guid, push_hex, push_ip, push_padded, push_str, push_u64,
};

/// What a field of an event holds.
#[derive(Clone, Copy)]
enum Fill {
    Text(&'static str),
    /// A decimal number in quotes, below the bound.
    QuotedNumber(u64),
    Number(u64),
    /// `0x3e7`, below the bound.
    Handle(u64),
    User,
    Process,
    CommandLine,
    Guid,
    Sha256,
    Ip,
    Path,
    Utc,
}
use Fill::{
    CommandLine, Guid, Handle, Ip, Number, Path, Process, QuotedNumber, Sha256, Text, User, Utc,
};

struct Kind {
    id: u64,
    channel: &'static str,
    provider: &'static str,
    task: &'static str,
    level: &'static str,
    fields: &'static [(&'static str, Fill)],
}

const AUDIT: &str = "Microsoft-Windows-Security-Auditing";
const SYSMON: &str = "Microsoft-Windows-Sysmon";
const OPERATIONAL: &str = "Microsoft-Windows-Sysmon/Operational";

const KINDS: [Kind; 6] = [
    Kind {
        id: 10,
        channel: OPERATIONAL,
        provider: SYSMON,
        task: "Process accessed (rule: ProcessAccess)",
        level: "INFO",
        fields: &[
            ("RuleName", Text("-")),
            ("UtcTime", Utc),
            ("SourceProcessGUID", Guid),
            ("SourceProcessId", QuotedNumber(9_000)),
            ("SourceThreadId", QuotedNumber(9_000)),
            ("SourceImage", Process),
            ("TargetProcessGUID", Guid),
            ("TargetProcessId", QuotedNumber(9_000)),
            ("TargetImage", Process),
            ("GrantedAccess", Handle(2_000_000)),
            ("CallTrace", Path),
            ("SourceUser", User),
            ("TargetUser", User),
        ],
    },
    Kind {
        id: 4663,
        channel: "Security",
        provider: AUDIT,
        task: "An attempt was made to access an object",
        level: "INFO",
        fields: &[
            ("SubjectUserSid", Text("S-1-5-18")),
            ("SubjectUserName", User),
            ("SubjectDomainName", Text("YARD")),
            ("SubjectLogonId", Handle(1_000_000)),
            ("ObjectServer", Text("Security")),
            ("ObjectType", Text("File")),
            ("ObjectName", Path),
            ("HandleId", Handle(10_000)),
            ("AccessList", Text("%%4416")),
            ("AccessMask", Handle(32)),
            ("ProcessId", Handle(9_000)),
            ("ProcessName", Process),
            ("ResourceAttributes", Text("S:AI")),
        ],
    },
    Kind {
        id: 5156,
        channel: "Security",
        provider: AUDIT,
        task: "The Windows Filtering Platform has permitted a connection",
        level: "INFO",
        fields: &[
            ("ProcessId", QuotedNumber(9_000)),
            ("Application", Process),
            ("Direction", Text("%%14593")),
            ("SourceAddress", Ip),
            ("SourcePort", QuotedNumber(65_535)),
            ("DestAddress", Ip),
            ("DestPort", QuotedNumber(1_024)),
            ("Protocol", QuotedNumber(17)),
            ("FilterRTID", QuotedNumber(90_000)),
            ("LayerName", Text("%%14611")),
            ("LayerRTID", Number(50)),
            ("RemoteUserID", Text("S-1-0-0")),
            ("RemoteMachineID", Text("S-1-0-0")),
        ],
    },
    Kind {
        id: 1,
        channel: OPERATIONAL,
        provider: SYSMON,
        task: "Process Create (rule: ProcessCreate)",
        level: "INFO",
        fields: &[
            ("RuleName", Text("-")),
            ("UtcTime", Utc),
            ("ProcessGuid", Guid),
            ("ProcessId", Number(9_000)),
            ("Image", Process),
            ("FileVersion", Text("10.0.19041.1")),
            ("Description", Text("Host Process")),
            ("Company", Text("Yard Systems")),
            ("CommandLine", CommandLine),
            ("CurrentDirectory", Path),
            ("User", User),
            ("LogonGuid", Guid),
            ("LogonId", Handle(1_000_000)),
            ("TerminalSessionId", Number(4)),
            ("IntegrityLevel", Text("High")),
            ("Hashes", Sha256),
            ("ParentProcessGuid", Guid),
            ("ParentProcessId", Number(9_000)),
            ("ParentImage", Process),
            ("ParentCommandLine", CommandLine),
        ],
    },
    Kind {
        id: 4624,
        channel: "Security",
        provider: AUDIT,
        task: "An account was successfully logged on",
        level: "INFO",
        fields: &[
            ("SubjectUserName", User),
            ("SubjectLogonId", Handle(1_000_000)),
            ("TargetUserSid", Text("S-1-5-21-7")),
            ("TargetUserName", User),
            ("TargetLogonId", Handle(9_000_000)),
            ("LogonType", QuotedNumber(11)),
            ("LogonProcessName", Text("Kerberos")),
            ("AuthenticationPackageName", Text("Kerberos")),
            ("WorkstationName", Text("-")),
            ("LogonGuid", Guid),
            ("KeyLength", QuotedNumber(128)),
            ("ProcessName", Process),
            ("IpAddress", Ip),
            ("IpPort", QuotedNumber(65_535)),
            ("ElevatedToken", Text("%%1842")),
        ],
    },
    Kind {
        id: 4625,
        channel: "Security",
        provider: AUDIT,
        task: "An account failed to log on",
        level: "WARNING",
        fields: &[
            ("SubjectUserName", User),
            ("TargetUserName", User),
            ("Status", Handle(3_221_225_581)),
            ("FailureReason", Text("%%2313")),
            ("SubStatus", Handle(3_221_225_581)),
            ("LogonType", Number(11)),
            ("WorkstationName", Text("YARD-01")),
            ("IpAddress", Ip),
            ("IpPort", Number(65_535)),
            ("ProcessName", Text("-")),
        ],
    },
];
const USERS: [&str; 8] = [
    "SYSTEM",
    "LOCAL SERVICE",
    "NETWORK SERVICE",
    "svc-backup",
    "a.miller",
    "j.novak",
    "p.rossi",
    "m.tanaka",
];
const PROCESSES: [&str; 9] = [
    "svchost.exe",
    "lsass.exe",
    "services.exe",
    "explorer.exe",
    "powershell.exe",
    "cmd.exe",
    "wmiprvse.exe",
    "chrome.exe",
    "taskhostw.exe",
];

pub fn write(mut rng: Rng, index: u64, time_ns: i64, stamps: &mut StampCache, out: &mut Vec<u8>) {
    let rng = &mut rng;
    #[expect(
        clippy::indexing_slicing,
        reason = "`skewed_below` stays under the length"
    )]
    let kind = &KINDS[rng.skewed_below(KINDS.len() as u64) as usize];
    push_str(out, r#"{"@timestamp":""#);
    stamps.push_rfc3339(out, time_ns, 3);
    push_str(out, r#"","level":""#);
    push_str(out, kind.level);
    push_str(out, r#"","source":""#);
    push_str(out, kind.channel);
    push_str(out, r#"","message":""#);
    push_message(rng, kind, out);
    push_str(out, r#"","EventID":"#);
    push_u64(out, kind.id);
    push_str(out, r#","RecordNumber":"#);
    push_u64(out, 1_000_000 + index);
    push_system_fields(rng, kind, time_ns, stamps, out);
    for (name, fill) in kind.fields {
        push_str(out, ",\"");
        push_str(out, name);
        push_str(out, "\":");
        push_fill(rng, *fill, time_ns, stamps, out);
    }
    out.push(b'}');
}

/// The fields around every event.
fn push_system_fields(
    rng: &mut Rng,
    kind: &Kind,
    time_ns: i64,
    stamps: &mut StampCache,
    out: &mut Vec<u8>,
) {
    push_str(out, r#","Hostname":"WS-"#);
    push_padded(out, rng.below(200), 3);
    push_str(out, r#".yard.example","Channel":""#);
    push_str(out, kind.channel);
    push_str(out, r#"","SourceName":""#);
    push_str(out, kind.provider);
    push_str(
        out,
        r#"","ProviderGuid":"{54849625-5478-4994-A5BA-3E3B0328C30D}","Category":""#,
    );
    push_str(out, kind.task);
    push_str(
        out,
        r#"","SourceModuleName":"eventlog","SourceModuleType":"im_msvistalog","EventType":"#,
    );
    push_str(
        out,
        if kind.level == "INFO" {
            r#""INFO""#
        } else {
            r#""AUDIT_FAILURE""#
        },
    );
    push_str(out, r#","SeverityValue":"#);
    push_u64(out, if kind.level == "INFO" { 2 } else { 3 });
    push_str(out, r#","OpcodeValue":0,"Version":"#);
    push_u64(out, rng.below(6));
    push_str(out, r#","Keywords":-9223372036854775808,"ThreadID":"#);
    push_u64(out, rng.below(9_000));
    push_str(out, r#","ExecutionProcessID":"#);
    push_u64(out, rng.below(9_000));
    push_str(out, r#","Task":"#);
    push_u64(out, 12_000 + kind.id % 1_000);
    push_str(out, r#","ActivityID":"#);
    push_fill(rng, Guid, time_ns, stamps, out);
    push_str(out, r#","EventReceivedTime":"#);
    push_fill(rng, Utc, time_ns, stamps, out);
    push_str(out, r#","port":"#);
    push_u64(out, 49_152 + rng.below(16_384));
    push_str(
        out,
        r#","tags":["windows","yard"],"agent":{"version":"4.2.1","name":"collector-"#,
    );
    push_u64(out, rng.below(4));
    push_str(out, r#""}"#);
}

/// The rendered message repeats what the fields say, over several lines, as Windows does.
fn push_message(rng: &mut Rng, kind: &Kind, out: &mut Vec<u8>) {
    push_str(out, kind.task);
    push_str(
        out,
        r".\r\n\r\nSubject:\r\n\tSecurity ID:\t\tS-1-5-18\r\n\tAccount Name:\t\t",
    );
    push_str(out, rng.pick(&USERS));
    push_str(out, r"\r\n\tAccount Domain:\t\tYARD\r\n\tLogon ID:\t\t0x");
    push_hex(out, rng.draw(), 6);
    push_str(out, r"\r\n\r\nProcess Information:\r\n\tProcess ID:\t\t0x");
    push_hex(out, rng.below(9_000), 4);
    push_str(out, r"\r\n\tProcess Name:\t\tC:\\Windows\\System32\\");
    push_str(out, rng.pick(&PROCESSES));
    push_str(
        out,
        r"\r\n\r\nThis event is generated when the operation completes.",
    );
}

fn push_fill(rng: &mut Rng, fill: Fill, time_ns: i64, stamps: &mut StampCache, out: &mut Vec<u8>) {
    if let Number(bound) = fill {
        return push_u64(out, rng.below(bound));
    }
    out.push(b'"');
    match fill {
        Number(_) => {}
        Text(text) => push_str(out, text),
        QuotedNumber(bound) => push_u64(out, rng.below(bound)),
        Handle(bound) => {
            push_str(out, "0x");
            push_hex(out, rng.below(bound), 8);
        }
        User => push_str(out, rng.pick_skewed(&USERS)),
        Process => {
            push_str(out, r"C:\\Windows\\System32\\");
            push_str(out, rng.pick_skewed(&PROCESSES));
        }
        CommandLine => {
            push_str(out, rng.pick(&PROCESSES));
            push_str(out, r" -k netsvcs -p -s job");
            push_u64(out, rng.below(500));
        }
        Guid => {
            out.push(b'{');
            push_guid(out, rng);
            out.push(b'}');
        }
        Sha256 => {
            push_str(out, "SHA256=");
            for _ in 0..4 {
                push_hex(out, rng.draw(), 16);
            }
        }
        Ip => push_ip(out, Rng::of_line(5, rng.below(600)).draw()),
        Path => {
            push_str(out, r"C:\\Users\\Public\\Documents\\report-");
            push_u64(out, rng.below(100_000));
            push_str(out, ".docx");
        }
        Utc => stamps.push_rfc3339(out, time_ns, 3),
    }
    out.push(b'"');
}
