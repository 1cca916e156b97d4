//! What `kibana-setup` puts into Kibana, as a Kibana of version 8 exports it: a data view, saved searches, and a dashboard of two charts and a table.
//!
//! The shape follows exports of Kibana 8.9: texts that hold JSON, references by name, the versions of each type's migrations. Kibana migrates older
//! shapes when it imports them, so newer versions take these as well. Ids are fixed: the same objects are written each time.

use serde_json::{Value, json};

use crate::record::level::Severity;

pub const DATA_VIEW_ID: &str = "logyard-logs";
pub const ERRORS_ID: &str = "logyard-errors";
pub const BY_SERVICE_ID: &str = "logyard-by-service";
pub const DASHBOARD_ID: &str = "logyard-overview";

/// The version of Kibana's own format that the objects are written in.
const CORE_MIGRATION: &str = "8.8.0";
const TIME_FIELD: &str = "timestamp";

/// The indices that Kibana looks at: `logs-` and `logs` are `logs*`.
pub fn pattern(index_prefix: &str) -> String {
    format!("{}*", index_prefix.trim_end_matches(['-', '.', '_']))
}

pub fn data_view_name(index_prefix: &str) -> String {
    format!("Logyard: {}", pattern(index_prefix))
}

/// What the data views API takes.
pub fn data_view(index_prefix: &str) -> Value {
    json!({
        "title": pattern(index_prefix),
        "name": data_view_name(index_prefix),
        "timeFieldName": TIME_FIELD,
    })
}

/// The data view as a saved object, for a file that is imported by hand.
pub fn data_view_object(index_prefix: &str) -> Value {
    let attributes = json!({
        "allowHidden": false,
        "fieldAttrs": "{}",
        "fieldFormatMap": "{}",
        "fields": "[]",
        "name": data_view_name(index_prefix),
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "timeFieldName": TIME_FIELD,
        "title": pattern(index_prefix),
    });
    object(("index-pattern", "8.0.0"), DATA_VIEW_ID, &attributes, &[])
}

/// The saved searches and the dashboard; they refer to the data view.
pub fn objects() -> Vec<Value> {
    vec![
        search(
            ERRORS_ID,
            "Logyard: errors",
            "Records of level error and worse, newest first",
            &errors_query(),
            &["level", "source", "message"],
            &[[TIME_FIELD, "desc"]],
        ),
        search(
            BY_SERVICE_ID,
            "Logyard: by service",
            "Records in the order of their services (field `source`)",
            "source: *",
            &["source", "level", "message"],
            &[["source", "asc"], [TIME_FIELD, "desc"]],
        ),
        dashboard(),
    ]
}

/// Levels that were sent as numbers lie in a field of their own (`level~long`), where syslog's numbers from emergency (0) to error (3) mean the same.
fn errors_query() -> String {
    format!(
        "level: ({}) or (level~long >= 0 and level~long <= 3)",
        error_levels().join(" or ")
    )
}

/// The texts that mean an error or worse, as senders write them: Kibana compares letters exactly.
fn error_levels() -> Vec<String> {
    let mut levels = Vec::new();
    for text in [Severity::Error, Severity::Critical]
        .iter()
        .flat_map(|severity| severity.texts())
    {
        let (first, rest) = text.split_at(1);
        let capital = format!("{}{rest}", first.to_uppercase());
        for text in [(*text).to_owned(), capital, text.to_uppercase()] {
            if !levels.contains(&text) {
                levels.push(text);
            }
        }
    }
    levels
}

/// One object on each line.
pub fn ndjson(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}

fn object(
    (kind, migration): (&str, &str),
    id: &str,
    attributes: &Value,
    references: &[Value],
) -> Value {
    json!({
        "attributes": attributes,
        "coreMigrationVersion": CORE_MIGRATION,
        "id": id,
        "managed": false,
        "references": references,
        "type": kind,
        "typeMigrationVersion": migration,
    })
}

fn data_view_reference(name: &str) -> Value {
    json!({"id": DATA_VIEW_ID, "name": name, "type": "index-pattern"})
}

fn kuery(query: &str) -> Value {
    json!({"language": "kuery", "query": query})
}

fn search(
    id: &str,
    title: &str,
    description: &str,
    query: &str,
    columns: &[&str],
    sort: &[[&str; 2]],
) -> Value {
    const INDEX: &str = "kibanaSavedObjectMeta.searchSourceJSON.index";
    let source = json!({"query": kuery(query), "filter": [], "indexRefName": INDEX});
    let attributes = json!({
        "columns": columns,
        "description": description,
        "grid": {},
        "hideChart": false,
        "isTextBasedQuery": false,
        "kibanaSavedObjectMeta": {"searchSourceJSON": source.to_string()},
        "sort": sort,
        "timeRestore": false,
        "title": title,
    });
    object(
        ("search", "8.0.0"),
        id,
        &attributes,
        &[data_view_reference(INDEX)],
    )
}

/// Where a panel lies, in the 48 columns of a dashboard.
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

/// A panel, and the references that the dashboard takes over from it.
struct Panel {
    json: Value,
    references: Vec<Value>,
}

fn dashboard() -> Value {
    let panels = [
        chart(
            "timeline",
            "Timeline by level",
            &Place {
                x: 0,
                y: 0,
                w: 48,
                h: 12,
            },
            &timeline(),
        ),
        chart(
            "services",
            "Top services",
            &Place {
                x: 0,
                y: 12,
                w: 16,
                h: 18,
            },
            &top_services(),
        ),
        saved_search(
            "errors",
            "Errors",
            &Place {
                x: 16,
                y: 12,
                w: 32,
                h: 18,
            },
            ERRORS_ID,
        ),
    ];
    let references: Vec<Value> = panels
        .iter()
        .flat_map(|panel| panel.references.clone())
        .collect();
    let panels: Vec<Value> = panels.into_iter().map(|panel| panel.json).collect();
    let options = json!({
        "useMargins": true,
        "syncColors": false,
        "syncCursor": true,
        "syncTooltips": false,
        "hidePanelTitles": false,
    });
    let source = json!({"query": kuery(""), "filter": []});
    let attributes = json!({
        "description": "Logs by time and level, the busiest services, the newest errors",
        "kibanaSavedObjectMeta": {"searchSourceJSON": source.to_string()},
        "optionsJSON": options.to_string(),
        "panelsJSON": Value::from(panels).to_string(),
        "timeRestore": false,
        "title": "Logyard: overview",
        "version": 1,
    });
    object(
        ("dashboard", "8.9.0"),
        DASHBOARD_ID,
        &attributes,
        &references,
    )
}

fn panel(kind: &str, index: &str, title: &str, place: &Place) -> Value {
    json!({
        "type": kind,
        "gridData": {"x": place.x, "y": place.y, "w": place.w, "h": place.h, "i": index},
        "panelIndex": index,
        "title": title,
    })
}

fn saved_search(index: &str, title: &str, place: &Place, id: &str) -> Panel {
    let name = format!("panel_{index}");
    let mut json = panel("search", index, title, place);
    set(&mut json, "embeddableConfig", json!({"enhancements": {}}));
    set(&mut json, "panelRefName", json!(name));
    let reference = json!({"id": id, "name": format!("{index}:{name}"), "type": "search"});
    Panel {
        json,
        references: vec![reference],
    }
}

/// A chart that lives in the dashboard itself.
fn chart(index: &str, title: &str, place: &Place, chart: &Chart) -> Panel {
    let reference = format!("indexpattern-datasource-layer-{}", chart.layer);
    let attributes = json!({
        "title": "",
        "type": "lens",
        "visualizationType": "lnsXY",
        "references": [data_view_reference(&reference)],
        "state": {
            "adHocDataViews": {},
            "datasourceStates": {
                "formBased": {"layers": {chart.layer: {
                    "columnOrder": chart.column_order,
                    "columns": chart.columns,
                    "incompleteColumns": {},
                    "sampling": 1,
                }}},
            },
            "filters": [],
            "internalReferences": [],
            "query": kuery(""),
            "visualization": chart.visualization,
        },
    });
    let mut json = panel("lens", index, title, place);
    let config = json!({"attributes": attributes, "enhancements": {}});
    set(&mut json, "embeddableConfig", config);
    Panel {
        json,
        references: vec![data_view_reference(&format!("{index}:{reference}"))],
    }
}

struct Chart {
    layer: &'static str,
    column_order: Vec<&'static str>,
    columns: Value,
    visualization: Value,
}

fn timeline() -> Chart {
    Chart {
        layer: "logyard-timeline",
        column_order: vec!["level", "time", "count"],
        columns: json!({
            "time": {
                "dataType": "date",
                "isBucketed": true,
                "label": TIME_FIELD,
                "operationType": "date_histogram",
                "params": {"dropPartials": false, "includeEmptyRows": true, "interval": "auto"},
                "scale": "interval",
                "sourceField": TIME_FIELD,
            },
            "level": top_values("level", 9, true),
            "count": count_of_records(),
        }),
        visualization: xy("logyard-timeline", "bar_stacked", "time", Some("level")),
    }
}

fn top_services() -> Chart {
    Chart {
        layer: "logyard-services",
        column_order: vec!["source", "count"],
        columns: json!({
            "source": top_values("source", 15, false),
            "count": count_of_records(),
        }),
        visualization: xy("logyard-services", "bar_horizontal", "source", None),
    }
}

fn count_of_records() -> Value {
    json!({
        "customLabel": false,
        "dataType": "number",
        "isBucketed": false,
        "label": "Count of records",
        "operationType": "count",
        "params": {"emptyAsNull": true},
        "scale": "ratio",
        "sourceField": "___records___",
    })
}

fn top_values(field: &str, size: u32, with_others: bool) -> Value {
    json!({
        "dataType": "string",
        "isBucketed": true,
        "label": format!("Top {size} values of {field}"),
        "operationType": "terms",
        "params": {
            "missingBucket": false,
            "orderBy": {"columnId": "count", "type": "column"},
            "orderDirection": "desc",
            "otherBucket": with_others,
            "parentFormat": {"id": "terms"},
            "size": size,
        },
        "scale": "ordinal",
        "sourceField": field,
    })
}

fn xy(layer: &str, series: &str, x: &str, split: Option<&str>) -> Value {
    let mut data = json!({
        "accessors": ["count"],
        "layerId": layer,
        "layerType": "data",
        "position": "top",
        "seriesType": series,
        "showGridlines": false,
        "xAccessor": x,
    });
    if let Some(split) = split {
        set(&mut data, "splitAccessor", json!(split));
    }
    let all = |is: bool| json!({"x": is, "yLeft": is, "yRight": is});
    json!({
        "axisTitlesVisibilitySettings": {"x": false, "yLeft": false, "yRight": true},
        "fittingFunction": "None",
        "gridlinesVisibilitySettings": all(true),
        "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
        "layers": [data],
        "legend": {"isVisible": true, "position": "right"},
        "preferredSeriesType": series,
        "tickLabelsVisibilitySettings": all(true),
        "valueLabels": "hide",
    })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_holds_the_daily_indices() {
        for (prefix, expected) in [
            ("logs-", "logs*"),
            ("logs", "logs*"),
            ("team.logs_", "team.logs*"),
        ] {
            assert_eq!(pattern(prefix), expected);
        }
    }
}
