//! How the figures of both grow: with keys, watchers, the size of values, and clients.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use revfs_api::wire::etcdserverpb::RangeRequest;

use crate::load::{Done, KEYS, Load, Outcome};
use crate::plot::{self, Plot};
use crate::server::Server;
use crate::settings::Settings;
use crate::table::median;
use crate::watching;
use crate::workloads::{Size, USUAL, gets, puts};

type Run =
    for<'l> fn(&'l Load, usize, Duration) -> Pin<Box<dyn Future<Output = Outcome<Done>> + 'l>>;

/// Clients that put values of different sizes: the largest fill what a node holds in memory for them.
const OF_LARGE_VALUES: usize = 16;

const NUMBERS_OF_KEYS: &[usize] = &[KEYS, 100_000, 1_000_000, 10_000_000];

struct Sweep {
    file: &'static str,
    title: &'static str,
    grows: &'static str,
    points: &'static [usize],
    run: Run,
    /// The points are numbers of keys that must be there.
    fills: bool,
}

/// The last ones come behind all others, since keys only become more.
const SWEEPS: &[Sweep] = &[
    Sweep {
        file: "puts-by-clients",
        title: "puts a second",
        grows: "clients",
        points: &[1, 8, 64, 512],
        run: |load, clients, length| Box::pin(puts(load, Size { clients, ..USUAL }, length)),
        fills: false,
    },
    Sweep {
        file: "gets-by-clients",
        title: "linearizable gets a second",
        grows: "clients",
        points: &[1, 8, 64, 512],
        run: |load, clients, length| {
            Box::pin(gets(load, Size { clients, ..USUAL }, RangeRequest::default(), length))
        },
        fills: false,
    },
    Sweep {
        file: "puts-by-value-size",
        title: "puts a second, 16 clients",
        grows: "bytes of a value",
        points: &[16, 256, 4 << 10, 64 << 10, 1 << 20],
        run: |load, value_bytes, length| {
            Box::pin(puts(load, Size { clients: OF_LARGE_VALUES, value_bytes, ..USUAL }, length))
        },
        fills: false,
    },
    Sweep {
        file: "events-by-watchers",
        title: "events a second, 16 clients put",
        grows: "watchers of what is put",
        points: &[1, 10, 100, 1_000, 10_000],
        run: |load, watchers, length| Box::pin(watching::fan_out(load, watchers, length)),
        fills: false,
    },
    Sweep {
        file: "puts-by-keys",
        title: "puts to random keys a second, 64 clients",
        grows: "keys",
        points: NUMBERS_OF_KEYS,
        run: |load, keys, length| Box::pin(puts(load, Size { keys, ..USUAL }, length)),
        fills: true,
    },
    Sweep {
        file: "gets-by-keys",
        title: "linearizable gets of random keys a second, 64 clients",
        grows: "keys",
        points: NUMBERS_OF_KEYS,
        run: |load, keys, length| {
            Box::pin(gets(load, Size { keys, ..USUAL }, RangeRequest::default(), length))
        },
        fills: true,
    },
];

/// Draws a picture of each sweep into `directory` and prints its figures.
pub(crate) async fn sweep(
    settings: &Settings,
    servers: &[Server; 2],
    directory: &Path,
) -> Outcome<()> {
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("--sweep {}: {error}", directory.display()))?;
    let mut loads = Vec::new();
    for server in servers {
        let load = Load::connect(server).await?;
        load.fill(0..KEYS).await?;
        loads.push(load);
    }
    let wanted: Vec<&Sweep> = SWEEPS.iter().filter(|sweep| settings.wants(sweep.file)).collect();
    let mut plots: Vec<Plot> = wanted
        .iter()
        .map(|sweep| Plot { title: sweep.title, grows: sweep.grows, lines: Default::default() })
        .collect();
    for (sweep, plot) in wanted.iter().zip(&mut plots).filter(|(sweep, _)| !sweep.fills) {
        for &point in sweep.points {
            add(settings, &loads, sweep, point, plot).await?;
        }
    }
    // All that is measured with so many keys, before there are more.
    let mut keys = KEYS;
    for &point in NUMBERS_OF_KEYS {
        let mut growing = wanted.iter().zip(&mut plots).filter(|(sweep, _)| sweep.fills).peekable();
        if point > settings.keys_max || growing.peek().is_none() {
            break;
        }
        for load in &loads {
            load.fill(keys..point).await?;
        }
        keys = keys.max(point);
        for (sweep, plot) in growing {
            add(settings, &loads, sweep, point, plot).await?;
        }
    }
    for (sweep, plot) in wanted.iter().zip(&plots) {
        plot::draw(plot, &directory.join(sweep.file).with_extension("svg"))?;
        print!("{}", plot::table(plot));
    }
    Ok(())
}

/// Measures one point on both servers in turn.
async fn add(
    settings: &Settings,
    loads: &[Load],
    sweep: &Sweep,
    point: usize,
    plot: &mut Plot,
) -> Outcome<()> {
    eprint!("{}, {point} {} …", sweep.title, sweep.grows);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..settings.rounds {
        for (rates, load) in rates.iter_mut().zip(loads) {
            let done = (sweep.run)(load, point, settings.sample).await?;
            rates.push(done.operations as f64 / done.took.as_secs_f64());
        }
    }
    let medians = rates.map(median);
    eprintln!(" etcd {:.0}, revfs {:.0}", medians[0], medians[1]);
    for (line, rate) in plot.lines.iter_mut().zip(medians) {
        line.push((point as f64, rate));
    }
    Ok(())
}
