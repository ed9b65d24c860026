//! Draws bar charts as SVG. All that is wanted is a title and bars with their figures. A crate would ask
//! to be told more.

use std::fmt::Write;

/// Pixels.
const WIDTH: f64 = 760.0;
const LABELS: f64 = 250.0;
const FIGURES: f64 = 110.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 56.0;
const FOOT: f64 = 14.0;
const OURS: &str = "#1f6f8b";
const OTHERS: &str = "#a9b4bc";

/// What the length of a bar says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scale {
    /// In proportion.
    Linear,
    /// A step for each power of ten.
    Logarithmic,
}

/// A bar.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) figure: String,
    /// Whether it stands out.
    pub(crate) ours: bool,
}

/// A chart of horizontal bars, one a line.
pub(crate) fn chart(title: &str, subtitle: &str, scale: Scale, bars: &[Bar]) -> String {
    let room = WIDTH - LABELS - FIGURES;
    let lengths = lengths(scale, bars);
    let height = HEAD + ROW * bars.len() as f64 + FOOT;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"600\">{}</text>\n\
         <text x=\"12\" y=\"41\" fill=\"#555\">{}</text>\n",
        escaped(title),
        escaped(subtitle),
    );
    for (row, (bar, length)) in bars.iter().zip(lengths).enumerate() {
        let top = HEAD + ROW * row as f64;
        let (middle, end) = (top + ROW / 2.0 + 4.0, LABELS + room * length);
        let colour = if bar.ours { OURS } else { OTHERS };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\n",
            LABELS - 8.0,
            escaped(&bar.label),
            top + 4.0,
            room * length,
            ROW - 8.0,
            end + 6.0,
            escaped(&bar.figure),
        );
    }
    svg + "</svg>\n"
}

/// Of each bar, between 0 and 1.
fn lengths(scale: Scale, bars: &[Bar]) -> Vec<f64> {
    let values = || bars.iter().map(|bar| bar.value);
    let most = values().fold(0.0, f64::max);
    let length = |value: f64| match scale {
        Scale::Linear => value / most,
        Scale::Logarithmic => {
            // From the power of ten below the least.
            let least = values().fold(most, f64::min).max(f64::MIN_POSITIVE).log10();
            let from = if least.fract() == 0.0 { least - 1.0 } else { least.floor() };
            (value.log10() - from) / (most.log10() - from)
        }
    };
    values()
        .map(|value| Some(length(value)).filter(|length| length.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0))
        .collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
