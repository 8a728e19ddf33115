//! Plots as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 200.0;
/// Room for the axes' words.
const LEFT: f64 = 80.0;
const BELOW: f64 = 24.0;

/// A line of a plot.
pub struct Curve<'a> {
    /// What it shows.
    pub name: &'a str,
    /// A CSS colour.
    pub colour: &'a str,
    /// Its points.
    pub points: &'a [(f64, f64)],
}

/// How the axes' values are written.
pub type Shown = fn(f64) -> String;

fn frame(out: &mut String, (low, high): (f64, f64), top: f64, x: Shown, y: Shown) {
    let (right, bottom) = (LEFT + WIDTH, HEIGHT);
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (at, level) = (LEFT + share * WIDTH, bottom - share * (HEIGHT - 10.0));
        let _written = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {level:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"y\">{}</text>\
             <text x=\"{at:.1}\" y=\"{:.1}\" class=\"x\">{}</text>",
            LEFT - 6.0,
            level + 4.0,
            y(top * share),
            bottom + 16.0,
            x(low + (high - low) * share)
        );
    }
}

fn svg(body: &str) -> String {
    let (width, height) = (LEFT + WIDTH + 40.0, HEIGHT + BELOW);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">{body}</svg>")
}

/// Curves over time, as steps.
#[must_use]
pub fn curves(curves: &[Curve<'_>], x: Shown, y: Shown) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let high = all().map(|point| point.0).fold(1e-9, f64::max);
    let top = all().map(|point| point.1).fold(1e-9, f64::max);
    let mut out = String::new();
    frame(&mut out, (0.0, high), top, x, y);
    for curve in curves {
        let mut path = String::new();
        for (index, (at, value)) in curve.points.iter().enumerate() {
            let (left, level) = (LEFT + at / high * WIDTH, HEIGHT - value / top * (HEIGHT - 10.0));
            let _written =
                if index == 0 { write!(path, "M{left:.1} {level:.1}") } else { write!(path, "H{left:.1}V{level:.1}") };
        }
        let _written = write!(
            out,
            "<path class=\"curve\" stroke=\"{}\" d=\"{path}\"><title>{}</title></path>",
            curve.colour, curve.name
        );
    }
    svg(&out)
}

/// Bars over a logarithmic axis.
#[must_use]
pub fn bars(points: &[(f64, f64)], colour: &str, x: Shown, y: Shown) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (low, high) = (first.0.max(1e-6).ln(), last.0.max(1e-6).ln());
    let (span, top) = ((high - low).max(1e-9), points.iter().map(|point| point.1).fold(1e-9, f64::max));
    let width = (WIDTH / points.len() as f64).min(60.0);
    let mut out = String::new();
    let words = [(LEFT, first.0), (LEFT + WIDTH / 2.0, f64::midpoint(low, high).exp()), (LEFT + WIDTH, last.0)];
    for (at, value) in words {
        let _written = write!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" class=\"x\">{}</text>", HEIGHT + 16.0, x(value));
    }
    let _written = write!(out, "<text x=\"{:.1}\" y=\"14\" class=\"y\">{}</text>", LEFT - 6.0, y(top));
    for (at, value) in points.iter().filter(|point| point.1 > 0.0) {
        let (left, height) = (LEFT + (at.max(1e-6).ln() - low) / span * (WIDTH - width), value / top * (HEIGHT - 10.0));
        let _written = write!(
            out,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}: {}</title></rect>",
            HEIGHT - height.max(1.0),
            width * 0.9,
            height.max(1.0),
            x(*at),
            y(*value)
        );
    }
    svg(&out)
}
