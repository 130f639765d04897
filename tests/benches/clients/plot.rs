//! Pictures of how figures grow, both axes logarithmic.

use std::path::Path;

use plotters::prelude::*;

use crate::load::Outcome;

const SIZE: (u32, u32) = (640, 400);

const ETCD: RGBColor = RGBColor(120, 120, 120);
const REVFS: RGBColor = RGBColor(0, 110, 180);

pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) grows: &'static str,
    /// (what grows, the rate) of etcd and of revfs.
    pub(crate) lines: [Vec<(f64, f64)>; 2],
}

/// The least and the largest, with a little room around.
fn bounds(numbers: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (least, most) = numbers
        .fold((f64::MAX, 0.0_f64), |(least, most), number| (least.min(number), most.max(number)));
    least * 0.7..most * 1.4
}

pub(crate) fn draw(plot: &Plot, path: &Path) -> Outcome<()> {
    let points = || plot.lines.iter().flatten();
    if points().next().is_none() {
        return Ok(());
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let x = bounds(points().map(|(x, _)| *x)).log_scale();
    let y = bounds(points().map(|(_, y)| *y)).log_scale();
    let mut chart = ChartBuilder::on(&root)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(plot.grows).light_line_style(WHITE).draw()?;
    for (line, (name, colour)) in plot.lines.iter().zip([("etcd", ETCD), ("revfs", REVFS)]) {
        chart
            .draw_series(
                LineSeries::new(line.iter().copied(), colour.stroke_width(2)).point_size(3),
            )?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(ETCD).draw()?;
    root.present()?;
    Ok(())
}

/// The same in numbers, with the ratio of each point.
pub(crate) fn table(plot: &Plot) -> String {
    let mut text = format!("\n| {}: {} | etcd | revfs | ratio |\n", plot.title, plot.grows);
    text.push_str("| --- | --- | --- | --- |\n");
    let [etcd, revfs] = &plot.lines;
    for ((point, etcd), (_, revfs)) in etcd.iter().zip(revfs) {
        text.push_str(&format!("| {point} | {etcd:.0} | {revfs:.0} | {:.2} |\n", revfs / etcd));
    }
    text
}
