//! Envoy: a virtual host and a cluster for every app, from files that it
//! watches (RDS and CDS).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Place, Subject};
use crate::child::{Plan, Running, StopSignal};
use crate::scale::apps::Apps;

/// Files that it watches.
pub struct Files;

impl Subject for Files {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn write(&self, place: &Place, changed: SocketAddr) -> Result<()> {
        write_resources(place, "cds.json", |number| cluster(place, number, changed))?;
        write_routes(place)?;
        let bootstrap = serde_json::to_vec(&bootstrap(place))?;
        fs::write(place.folder.join("envoy.json"), bootstrap)?;
        Ok(())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let folder = &place.folder;
        let mut command = vec!["envoy".into(), "-c".into()];
        command.push(folder.join("envoy.json").into());
        let rest = ["--disable-hot-restart", "--log-level", "error"];
        command.extend(rest.map(Into::into));
        Running::start(&Plan {
            name: self.name(),
            command,
            core: None,
            stop: StopSignal::Kill,
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
        })
    }

    fn can_reload(&self) -> bool {
        false
    }

    fn reload(&self, _running: &Running) -> Result<()> {
        bail!("it has no reload")
    }

    fn change(&self, place: &Place, changed: SocketAddr) -> Result<Option<()>> {
        write_resources(place, "cds.json", |number| cluster(place, number, changed)).map(Some)
    }
}

/// A file of a discovery answer, a resource a line, moved into place: that is what Envoy watches for.
fn write_resources(place: &Place, name: &str, resource: impl Fn(usize) -> Value) -> Result<()> {
    let next = place.folder.join("next");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&next)?);
    out.write_all(b"{\"resources\":[\n")?;
    for number in 0..place.apps.count {
        if number > 0 {
            out.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut out, &resource(number))?;
    }
    out.write_all(b"]}\n")?;
    out.flush()?;
    fs::rename(&next, place.folder.join(name))?;
    Ok(())
}

/// One route configuration with every host.
fn write_routes(place: &Place) -> Result<()> {
    let hosts: Vec<Value> = (0..place.apps.count)
        .map(|number| {
            let (name, host) = (Apps::name(number), Apps::host(number));
            json!({"name": name, "domains": [host], "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": name, "timeout": "0s", "retry_policy": {"retry_on": "connect-failure"}},
            }]})
        })
        .collect();
    let routes = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "apps",
        "virtual_hosts": hosts,
    }]});
    fs::write(place.folder.join("rds.json"), serde_json::to_vec(&routes)?)?;
    Ok(())
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(place: &Place, number: usize, changed: SocketAddr) -> Value {
    let [first, second] = place.apps.addresses(number);
    let addresses = if number == super::CHANGED {
        [changed, changed]
    } else {
        [first, second]
    };
    let endpoints = addresses.map(|address| json!({"endpoint": {"address": socket(address)}}));
    let name = Apps::name(number);
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

fn bootstrap(place: &Place) -> Value {
    let watched = |name: &str| json!({"resource_api_version": "V3", "path_config_source": {"path": place.folder.join(name)}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "use_remote_address": true,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": place.folder.join("access.log"),
            },
        }],
        "rds": {"route_config_name": "apps", "config_source": watched("rds.json")},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    json!({
        "node": {"id": "scale", "cluster": "scale"},
        "dynamic_resources": {"cds_config": watched("cds.json")},
        "static_resources": {
            "listeners": [{
                "name": "public",
                "address": socket(place.address),
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
        },
    })
}
