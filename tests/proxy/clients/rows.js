// Prints, as JSON, the rows of a query read in several of the driver's ways.
const { Client, Pool } = require("pg");

async function main([host, port, user, database, table]) {
  const place = { host, port: Number(port), user, database };
  const text = `SELECT patient_id, ipp, birth_date::text, weight_kg, height_cm FROM ${table}`;
  const found = {};
  const client = new Client(place);
  await client.connect();
  found.simple = (await client.query(`${text} ORDER BY patient_id`)).rows;
  found.parameters = (await client.query(`${text} WHERE patient_id = $1`, [7])).rows;
  const prepared = { name: "one", text: `${text} WHERE patient_id = $1` };
  found.prepared = [];
  for (const id of [1, 2, 3]) {
    found.prepared.push((await client.query({ ...prepared, values: [id] })).rows);
  }
  found.arrays = (
    await client.query({ text: `${text} ORDER BY 1`, rowMode: "array", binary: true, values: [] })
  ).rows.length;
  await client.query("BEGIN");
  await client.query("CREATE TEMP TABLE note (id integer)");
  await client.query("INSERT INTO note SELECT generate_series(1, 5)");
  found.notes = (await client.query("SELECT count(*) FROM note")).rows;
  await client.query("ROLLBACK");
  found.error = await client.query("SELECT 1/0").catch((error) => error.code);
  await client.end();
  const pool = new Pool({ ...place, max: 4 });
  const many = [11, 12, 13, 14, 15, 16].map((id) =>
    pool.query(`${text} WHERE patient_id = $1`, [id]),
  );
  found.pool = (await Promise.all(many)).map((result) => result.rows);
  await pool.end();
  console.log(JSON.stringify(found));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
