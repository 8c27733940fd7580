//! Bar charts as SVG, for the README.

use std::fmt::Write;

use crate::report::Spread;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 190.0;
const BAR: f64 = 14.0;
const STEP: f64 = 22.0;
const MARGIN: f64 = 16.0;

/// A bar: median as its length, extremes as a line over it.
#[derive(Debug)]
pub(crate) struct Bar {
    /// On its left.
    pub(crate) label: String,
    /// Not negative.
    pub(crate) value: Spread,
    /// On its right, behind the value.
    pub(crate) note: String,
    /// Whether it is ours.
    pub(crate) ours: bool,
}

/// Bars on one scale.
#[derive(Debug)]
pub(crate) struct Chart {
    /// Above them.
    pub(crate) title: String,
    /// From top to bottom.
    pub(crate) bars: Vec<Bar>,
}

/// Text for an element's content.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The charts below each other. `lines` are above them: what was measured, where and when.
pub(crate) fn draw(title: &str, lines: &[String], charts: &[Chart]) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 16.0;
    // Writing to a String can't fail.
    let _ = writeln!(body, r#"<text x="{MARGIN}" y="{y}" class="t">{}</text>"#, escaped(title));
    for line in lines {
        y += 16.0;
        let _ = writeln!(body, r#"<text x="{MARGIN}" y="{y}" class="n">{}</text>"#, escaped(line));
    }
    for chart in charts {
        y += 32.0;
        let _ = writeln!(body, r#"<text x="{MARGIN}" y="{y}" class="h">{}</text>"#, escaped(&chart.title));
        y += 8.0;
        let most = chart.bars.iter().map(|b| b.value.max).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LEFT - RIGHT) / most;
        for bar in &chart.bars {
            let (length, text) = (bar.value.median * scale, y + BAR - 2.0);
            let class = if bar.ours { "w" } else { "o" };
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{text}" class="l">{}</text><rect x="{LEFT}" y="{y}" width="{length:.1}" height="{BAR}" class="{class}"/>"#,
                LEFT - 8.0,
                escaped(&bar.label)
            );
            let (low, high) = (LEFT + bar.value.min * scale, LEFT + bar.value.max * scale);
            let middle = y + BAR / 2.0;
            let _ = writeln!(
                body,
                r#"<line x1="{low:.1}" y1="{middle}" x2="{high:.1}" y2="{middle}"/><text x="{:.1}" y="{text}" class="v">{:.2} {}</text>"#,
                high + 6.0,
                bar.value.median,
                escaped(&bar.note)
            );
            y += STEP;
        }
        y -= STEP - BAR;
    }
    let height = y + MARGIN;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<style>.t{{font-size:16px;font-weight:bold}}.h{{font-weight:bold}}.n{{fill:#555}}.l{{text-anchor:end}}.w{{fill:#3465a4}}.o{{fill:#babdb6}}line{{stroke:#222}}</style>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
{body}</svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_values_and_text_is_escaped() {
        let bar = |median: f64, max, label: &str| Bar {
            label: label.into(),
            value: Spread { median, min: 0.0, max },
            note: String::new(),
            ours: true,
        };
        let chart = Chart { title: "a & b".into(), bars: vec![bar(10.0, 20.0, "<x>"), bar(20.0, 20.0, "y")] };
        let svg = draw("title", &["line".into()], &[chart]);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;x&gt;"), "{svg}");
        assert!(svg.contains(r#"width="200.0""#) && svg.contains(r#"width="400.0""#), "{svg}");
    }
}
