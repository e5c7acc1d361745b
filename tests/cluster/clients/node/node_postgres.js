// node-postgres (pg): shops with a pool of connections each, named statements, cursors, streams, COPY, LISTEN, cancel.
'use strict'

const assert = require('node:assert/strict')
const { once } = require('node:events')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool, Query } = require('pg')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')
const copy = require('pg-copy-streams')

const SHOPS = 6
const ROUNDS = 25

// Connection parameters come from PGHOST, PGPORT and their kin, which both libpq and pg read.

async function sell(client, shop, round) {
  await client.query('begin')
  try {
    const sold = await client.query({
      name: `sell ${round % 3}`, // the same name is another text in each shop
      text: `insert into sale (shop, item, price, tags, at) values ($1, $2, $3::float8 + ${shop} * 0, $4, $5) returning id, at`,
      values: [shop, `item ${round}`, round * 1.5, ['a', `b"${round}`], new Date(Date.UTC(2024, 0, 1, shop, round))],
    })
    assert.equal(sold.rows[0].at.toISOString(), new Date(Date.UTC(2024, 0, 1, shop, round)).toISOString())
    await client.query('savepoint broken')
    await assert.rejects(client.query('select 1 / $1::int', [0]), { code: '22012' })
    await client.query('rollback to savepoint broken')
    await client.query('update sale set price = price + 1 where id = $1', [sold.rows[0].id])
    if (round % 5 === 4) throw new RangeError('a change of mind')
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    if (!(error instanceof RangeError)) throw error
  }
}

async function shop(number, links) {
  const pool = new Pool({ max: 1, application_name: `shop ${number}`, options: `-c search_path=shop_${number},public` })
  for (let round = 0; round < ROUNDS; round++) {
    const client = await pool.connect()
    try {
      await sell(client, number, round)
    } finally {
      client.release()
    }
    const kept = Array.from({ length: round + 1 }, (_, n) => n).filter((n) => n % 5 !== 4)
    const [total, mine, settings, link] = await Promise.all([
      pool.query({ name: 'total', text: `select count(*)::int n, sum(price)::float8 s from sale where shop = ${number}` }),
      pool.query('select name from here'),
      pool.query("select current_setting('application_name') as name, current_setting('search_path') as path"),
      pool.query('select pg_backend_pid() as pid'),
    ])
    assert.deepEqual(total.rows[0], { n: kept.length, s: kept.reduce((sum, n) => sum + n * 1.5 + 1, 0) })
    assert.deepEqual(mine.rows, [{ name: `shop ${number}` }])
    assert.deepEqual(settings.rows[0], { name: `shop ${number}`, path: `shop_${number},public` })
    links.add(link.rows[0].pid)
  }
  await pool.end()
}

async function crowd() {
  const links = Array.from({ length: SHOPS }, () => new Set())
  await Promise.all(links.map((seen, number) => shop(number, seen)))
  return links.map((seen) => [...seen])
}

async function cursors(client) {
  await client.query('begin')
  const cursor = client.query(new Cursor('select n from numbers where n <= $1 order by n', [250]))
  const seen = []
  for (let rows = await cursor.read(100); rows.length; rows = await cursor.read(100)) seen.push(...rows)
  await cursor.close()
  assert.deepEqual(seen.map((row) => row.n), Array.from({ length: 250 }, (_, n) => n + 1))
  const stream = client.query(new QueryStream('select n, word from numbers order by n', [], { batchSize: 70 }))
  let streamed = 0
  for await (const row of stream) assert.equal(row.word, `word ${++streamed}`)
  assert.equal(streamed, 1000)
  await client.query('commit')
}

async function copies(client) {
  await client.query('truncate scratch')
  const lines = Array.from({ length: 3000 }, (_, n) => `${n}\tline ${n}\n`)
  await pipeline(Readable.from(lines), client.query(copy.from('copy scratch from stdin')))
  let copied = ''
  for await (const piece of client.query(copy.to('copy (select * from scratch order by n) to stdout'))) copied += piece
  assert.equal(copied, lines.join(''))
  await assert.rejects(pipeline(Readable.from(['x\ty\n']), client.query(copy.from('copy scratch from stdin'))), { code: '22P02' })
  assert.equal((await client.query('select count(*)::int as n from scratch')).rows[0].n, 3000)
}

async function types(client) {
  const values = { i: 5, t: 'é', b: Buffer.from([0, 255]), j: { k: [1, null] }, a: [1, null, 3], z: null }
  for (let n = 0; n < 3; n++) {
    const text = 'select $1::int as i, $2::text as t, $3::bytea as b, $4::jsonb as j, $5::int[] as a, $6::text as z'
    const { rows } = await client.query({ name: 'types', text, values: Object.values(values) })
    assert.deepEqual(rows, [values])
  }
  const several = await client.query("select 1 as a; select 'x' as b, 2 as c; create temp table t (n int); drop table t")
  assert.deepEqual(several.map((result) => result.command), ['SELECT', 'SELECT', 'CREATE', 'DROP'])
  assert.deepEqual(several[1].rows, [{ b: 'x', c: 2 }])
  await assert.rejects(client.query({ name: 'types', text: 'select 2' }), /must be unique/)
  await client.query('discard all')
}

async function listens(client, others) {
  const heard = []
  client.on('notification', (event) => heard.push([event.channel, event.payload]))
  await client.query('listen sales')
  for (let n = 0; n < 12; n++) await others.query("select pg_notify('sales', $1)", [String(n)])
  while (heard.length < 12) await once(client, 'notification')
  assert.deepEqual(heard, Array.from({ length: 12 }, (_, n) => ['sales', String(n)]))
  await client.query('unlisten *')
}

async function cancels(client, others) {
  const sleeping = client.query(new Query('select pg_sleep(64)'))
  const asked = "select count(*)::int as n from pg_stat_activity where state = 'active' and query = 'select pg_sleep(64)'"
  while ((await others.query(asked)).rows[0].n === 0);
  const ended = once(sleeping, 'error')
  const canceller = new Client()
  canceller.on('error', () => {}) // the server closes it without a word, as the protocol has it
  canceller.cancel(client, sleeping)
  const [error] = await ended
  assert.equal(error.code, '57014')
  assert.equal((await client.query('select 1 as one')).rows[0].one, 1)
}

async function main() {
  const links = await crowd()
  const others = new Pool({ max: 3 })
  for (const scene of [cursors, copies, types, listens, cancels]) {
    const client = new Client()
    await client.connect()
    await scene(client, others)
    await client.end()
  }
  await others.end()
  console.log(JSON.stringify({ links }))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
