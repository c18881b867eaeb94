//! Messages to people: a few lines of markdown in the dialect of each chat. Names come from images
//! of strangers, so nothing in them may become a link, a mention or a format.

use std::fmt::Write as _;

use kuboard_vuln::{Severity, life_cycle::Event};
use serde_json::{Value, json};

use super::{
    Language,
    message::{Change, Told},
};

/// Changes listed in a message.
const LISTED: usize = 10;
/// Bytes below the title; WeCom takes 4096 with it.
const MAX_BYTES: usize = 3000;

/// How a chat writes.
struct Dialect {
    bold: &'static str,
    /// Slack writes links its own way and reads `&` as HTML does.
    is_slack: bool,
}

const MARKDOWN: Dialect = Dialect { bold: "**", is_slack: false };
const SLACK: Dialect = Dialect { bold: "*", is_slack: true };

/// A message for Slack's incoming webhooks.
pub(super) fn slack(told: &Told, language: Language) -> Value {
    let title = SLACK.bold(&title(told, language, &SLACK));
    json!({ "text": format!("{title}\n{}", body(told, language, &SLACK)) })
}

/// A message for DingTalk's robots.
pub(super) fn dingtalk(told: &Told, language: Language) -> Value {
    let title = title(told, language, &MARKDOWN);
    // A line ends a paragraph there only after two.
    let text = body(told, language, &MARKDOWN).replace('\n', "\n\n");
    json!({ "msgtype": "markdown", "markdown": {
        "title": title, "text": format!("#### {title}\n\n{text}") } })
}

/// A message for Feishu's robots; `signed` is the timestamp and its signature.
pub(super) fn feishu(told: &Told, language: Language, signed: Option<(&str, String)>) -> Value {
    let worst = told.changes.iter().filter(|change| change.is_bad()).map(|it| it.severity).max();
    let colour = match worst {
        Some(Severity::Critical | Severity::High) => "red",
        Some(Severity::Medium) => "orange",
        Some(_) => "blue",
        None => "green",
    };
    let title = title(told, language, &MARKDOWN);
    let mut message = json!({ "msg_type": "interactive", "card": {
        "config": { "wide_screen_mode": true },
        "header": { "template": colour, "title": { "tag": "plain_text", "content": title } },
        "elements": [{ "tag": "markdown", "content": body(told, language, &MARKDOWN) }],
    } });
    if let Some((timestamp, sign)) = signed {
        message["timestamp"] = json!(timestamp);
        message["sign"] = json!(sign);
    }
    message
}

/// A message for WeCom's robots.
pub(super) fn wecom(told: &Told, language: Language) -> Value {
    let title = MARKDOWN.bold(&title(told, language, &MARKDOWN));
    let body = body(told, language, &MARKDOWN);
    json!({ "msgtype": "markdown", "markdown": { "content": format!("{title}\n{body}") } })
}

impl Dialect {
    fn bold(&self, text: &str) -> String {
        format!("{0}{text}{0}", self.bold)
    }

    fn link(&self, text: &str, address: &str) -> String {
        let address: String = address
            .chars()
            .filter(|c| !c.is_control() && !c.is_whitespace() && !"<>()[]|".contains(*c))
            .collect();
        if self.is_slack { format!("<{address}|{text}>") } else { format!("[{text}]({address})") }
    }

    /// Text of a stranger, at most that many characters of it.
    fn plain(&self, text: &str, most: usize) -> String {
        let mut plain = String::new();
        for (count, character) in text.chars().enumerate() {
            match character {
                _ if count >= most => {
                    plain.push('…');
                    break;
                }
                '&' if self.is_slack => plain.push_str("&amp;"),
                '<' | '>' | '[' | ']' | '(' | ')' | '`' | '*' | '|' | '\\' | '#' => plain.push('?'),
                c if c.is_control() || is_invisible(c) => plain.push('?'),
                c => plain.push(c),
            }
        }
        plain
    }
}

/// Characters that change how the others are shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn title(told: &Told, language: Language, dialect: &Dialect) -> String {
    let subject = dialect.plain(&told.subject, 200);
    match language {
        Language::English => format!("Image scan: {subject}"),
        Language::Chinese => format!("镜像扫描：{subject}"),
    }
}

fn body(told: &Told, language: Language, dialect: &Dialect) -> String {
    let english = language == Language::English;
    let mut lines = vec![changes(told, english), counts(told, english)];
    if !told.summary.outcome.is_empty() && told.summary.outcome != "complete" {
        let why = dialect.plain(&told.summary.why, 200);
        lines.push(match (english, told.summary.outcome.as_str()) {
            (true, "unsupported") => format!("Not scanned: {why}"),
            (true, _) => format!("Partly read: {why}"),
            (false, "unsupported") => format!("未能扫描：{why}"),
            (false, _) => format!("扫描不完整：{why}"),
        });
    }
    lines.extend(told.changes.iter().take(LISTED).map(|change| line(change, english, dialect)));
    let more = told.total.saturating_sub(told.changes.len().min(LISTED));
    if more > 0 {
        lines.push(if english { format!("and {more} more") } else { format!("另有 {more} 项") });
    }
    if let Some(link) = &told.link {
        lines.push(dialect.link(if english { "Open the report" } else { "查看报告" }, link));
    }
    let mut text = String::new();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        if text.len() + line.len() > MAX_BYTES {
            break;
        }
        let _ = writeln!(text, "{line}");
    }
    text.truncate(text.trim_end().len());
    text
}

/// `2 new, 1 fixed`.
fn changes(told: &Told, english: bool) -> String {
    let kinds = [
        (Event::Opened, "new", "新增"),
        (Event::Reopened, "back", "重现"),
        (Event::Fixed, "fixed", "已修复"),
        (Event::Acknowledged, "acknowledged", "已确认"),
        (Event::Exempted, "exempt", "已豁免"),
        (Event::ExemptionEnded, "no longer exempt", "豁免到期"),
        (Event::Revoked, "revoked", "已撤销"),
    ];
    let mut words = Vec::new();
    for (kind, in_english, in_chinese) in kinds {
        let count = told.changes.iter().filter(|change| change.change == kind).count();
        if count > 0 {
            let more = if told.total > told.changes.len() { "+" } else { "" };
            words.push(match english {
                true => format!("{count}{more} {in_english}"),
                false => format!("{in_chinese} {count}{more}"),
            });
        }
    }
    words.join(if english { ", " } else { "，" })
}

/// `Now 1 CRITICAL, 2 HIGH; 2 can be fixed`.
fn counts(told: &Told, english: bool) -> String {
    let mut words = Vec::new();
    for severity in [
        Severity::Critical,
        Severity::High,
        Severity::Medium,
        Severity::Low,
        Severity::Negligible,
        Severity::Unknown,
    ] {
        let name = name(severity, true);
        if let Some(count) = told.summary.findings.get(name).filter(|count| **count > 0) {
            words.push(match english {
                true => format!("{count} {name}"),
                false => format!("{} {count}", self::name(severity, false)),
            });
        }
    }
    let fixable = told.summary.fixable;
    match (words.is_empty(), english) {
        (true, true) => "Now no findings".to_owned(),
        (true, false) => "当前无漏洞".to_owned(),
        (false, true) => format!("Now {}; {fixable} can be fixed", words.join(", ")),
        (false, false) => format!("当前 {}；可修复 {fixable}", words.join("，")),
    }
}

fn name(severity: Severity, english: bool) -> &'static str {
    match (severity, english) {
        (Severity::Critical, true) => "CRITICAL",
        (Severity::Critical, false) => "严重",
        (Severity::High, true) => "HIGH",
        (Severity::High, false) => "高危",
        (Severity::Medium, true) => "MEDIUM",
        (Severity::Medium, false) => "中危",
        (Severity::Low, true) => "LOW",
        (Severity::Low, false) => "低危",
        (Severity::Negligible, true) => "NEGLIGIBLE",
        (Severity::Negligible, false) => "可忽略",
        (Severity::Unknown, true) => "UNKNOWN",
        (Severity::Unknown, false) => "未评级",
    }
}

/// `- HIGH CVE-2024-1 openssl 3.0.1, fixed in 3.0.2`.
fn line(change: &Change, english: bool, dialect: &Dialect) -> String {
    let severity = dialect.bold(name(change.severity, english));
    let id = dialect.plain(&change.id, 60);
    let package = dialect.plain(&change.package, 80);
    let version = dialect.plain(&change.version, 40);
    let mut line = format!("- {severity} {id} {package} {version}").trim_end().to_owned();
    let fixed = change.fixed_in.first().map(|version| dialect.plain(version, 40));
    let _ = match (change.change, fixed, english) {
        (Event::Opened, Some(fixed), true) => write!(line, ", fixed in {fixed}"),
        (Event::Opened, Some(fixed), false) => write!(line, "，修复版本 {fixed}"),
        (Event::Opened, None, _) => Ok(()),
        (Event::Reopened, _, true) => write!(line, ", back"),
        (Event::Reopened, _, false) => write!(line, "，重现"),
        (Event::Fixed, _, true) => write!(line, ", gone"),
        (Event::Fixed, _, false) => write!(line, "，已修复"),
        (Event::Acknowledged, _, true) => write!(line, ", acknowledged"),
        (Event::Acknowledged, _, false) => write!(line, "，已确认"),
        (Event::Exempted, _, true) => write!(line, ", exempt"),
        (Event::Exempted, _, false) => write!(line, "，已豁免"),
        (Event::ExemptionEnded, _, true) => write!(line, ", no longer exempt"),
        (Event::ExemptionEnded, _, false) => write!(line, "，豁免到期"),
        (Event::Revoked, _, true) => write!(line, ", revoked"),
        (Event::Revoked, _, false) => write!(line, "，已撤销"),
    };
    line
}
