"""Reads table `labels` of a store on S3 by deltalake, Polars and DuckDB, and prints how many labels each finds set."""

import json, os, sys
import deltalake, duckdb, polars
url, endpoint = sys.argv[1], os.environ['AWS_ENDPOINT_URL']
options = {'AWS_ENDPOINT_URL': endpoint, 'AWS_ALLOW_HTTP': 'true', 'AWS_ACCESS_KEY_ID': 'test',
           'AWS_SECRET_ACCESS_KEY': os.environ['AWS_SECRET_ACCESS_KEY'], 'AWS_REGION': 'us-east-1'}
seen = {}
table = deltalake.DeltaTable(url + '/labels', storage_options=options)
flat = polars.from_arrow(table.to_pyarrow_table())
seen['deltalake'] = int(flat['label'].explode().sum())
seen['polars'] = int(polars.read_delta(url + '/labels', storage_options=options)['label'].explode().sum())
import duckdb_extension_delta, duckdb_extension_httpfs
connection = duckdb.connect()
for package in (duckdb_extension_httpfs, duckdb_extension_delta):
    folder = os.path.dirname(package.__file__)
    for place, _, files in os.walk(folder):
        for name in files:
            if name.endswith('.duckdb_extension'):
                connection.execute(f"LOAD '{os.path.join(place, name)}'")
host = endpoint.split('//')[1]
connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET '{options['AWS_SECRET_ACCESS_KEY']}', REGION 'us-east-1', "
                   f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)")
sql = f"SELECT sum(CAST(l AS INTEGER)) FROM (SELECT unnest(label) AS l FROM delta_scan('{url}/labels'))"
seen['duckdb'] = int(connection.execute(sql).fetchone()[0])
print(json.dumps(seen))
