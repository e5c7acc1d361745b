// postgres.js: warehouses that pipeline prepared statements by default; transactions, cursors, listen, COPY, cancel.
'use strict'

const assert = require('node:assert/strict')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const postgres = require('postgres')

const WAREHOUSES = 6
const ROUNDS = 25

function connect(options = {}) {
  const { PGHOST: host, PGPORT: port, PGUSER: user, PGPASSWORD: password, PGDATABASE: database } = process.env
  return postgres({ host, port: Number(port), user, password, database, max: 2, onnotice: () => {}, ...options })
}

async function store(sql, warehouse, round) {
  const goods = [1, 2, 3].map((n) => ({ warehouse, name: `good ${round}.${n}`, amount: n * round, about: { round, n } }))
  return sql.begin(async (sql) => {
    const stored = await sql`insert into good ${sql(goods)} returning name, about, amount`
    assert.deepEqual([...stored], goods.map(({ name, about, amount }) => ({ name, about, amount })))
    await assert.rejects(
      sql.savepoint(async (sql) => {
        await sql`delete from good where warehouse = ${warehouse}`
        await sql`select 1 / ${0}::int`
      }),
      { code: '22012' },
    )
    if (round % 4 === 3) throw new RangeError('does not fit')
  }).catch((error) => {
    if (!(error instanceof RangeError)) throw error
  })
}

async function warehouse(number, links) {
  const sql = connect({ max: 1, connection: { application_name: `warehouse ${number}`, TimeZone: `Etc/GMT+${number}` } })
  for (let round = 0; round < ROUNDS; round++) {
    await store(sql, number, round)
    const kept = Array.from({ length: round + 1 }, (_, n) => n).filter((n) => n % 4 !== 3)
    const [[total], named, [settings], [{ pid }]] = await Promise.all([
      sql`select count(*)::int as n, coalesce(sum(amount), 0)::int as s from good where warehouse = ${number}`,
      sql`select name from good where warehouse = ${number} and about->>'round' = any(${kept.map(String)}) order by name`,
      sql`select current_setting('application_name') as name, current_setting('TimeZone') as zone`,
      sql`select pg_backend_pid() as pid`,
    ])
    assert.deepEqual(total, { n: kept.length * 3, s: kept.reduce((sum, n) => sum + 6 * n, 0) })
    assert.equal(named.length, kept.length * 3)
    assert.deepEqual(settings, { name: `warehouse ${number}`, zone: `Etc/GMT+${number}` })
    links.add(pid)
  }
  await sql.end()
}

async function crowd() {
  const links = Array.from({ length: WAREHOUSES }, () => new Set())
  await Promise.all(links.map((seen, number) => warehouse(number, seen)))
  return links.map((seen) => [...seen])
}

async function cursors(sql) {
  const seen = []
  for await (const rows of sql`select n from numbers order by n`.cursor(70)) seen.push(...rows.map((row) => row.n))
  assert.deepEqual(seen, Array.from({ length: 1000 }, (_, n) => n + 1))
  let first = 0
  await sql`select n from numbers order by n`.cursor(10, ([row]) => {
    first = row.n
    return sql.CLOSE
  })
  assert.equal(first, 1)
}

async function copies(sql) {
  await sql`truncate scratch`
  const lines = Array.from({ length: 3000 }, (_, n) => `${n}\tline ${n}\n`)
  await pipeline(Readable.from(lines), await sql`copy scratch from stdin`.writable())
  let copied = ''
  for await (const piece of await sql`copy (select * from scratch order by n) to stdout`.readable()) copied += piece
  assert.equal(copied, lines.join(''))
}

async function types(sql) {
  const day = new Date(Date.UTC(2024, 1, 29))
  for (let n = 0; n < 3; n++) {
    const [row] = await sql`select ${'é'} as t, ${[1, 2]}::int[] as a, ${sql.json({ k: [n] })} as j, ${day}::timestamptz as d`
    assert.deepEqual(row, { t: 'é', a: [1, 2], j: { k: [n] }, d: day })
  }
  const [first, second] = await sql.unsafe("select 1 as a; select 'x' as b")
  assert.deepEqual([[...first], [...second]], [[{ a: 1 }], [{ b: 'x' }]])
  const statement = await sql`select n, word from numbers where n = ${1}`.describe()
  assert.deepEqual(statement.columns.map((column) => column.name), ['n', 'word'])
  await assert.rejects(sql`select * from ${sql('nowhere')}`, { code: '42P01' })
}

async function listens(sql) {
  const heard = []
  let done
  const all = new Promise((resolve) => (done = resolve))
  const { unlisten } = await sql.listen('stock', (said) => heard.push(said) === 12 && done())
  for (let n = 0; n < 12; n++) await sql.notify('stock', String(n))
  await all
  assert.deepEqual(heard, Array.from({ length: 12 }, (_, n) => String(n)))
  await unlisten()
}

async function cancels(sql) {
  const sleeping = sql`select pg_sleep(65)`.execute()
  const asked = () => sql`select count(*)::int as n from pg_stat_activity where state = 'active' and query = 'select pg_sleep(65)'`
  while ((await asked())[0].n === 0);
  sleeping.cancel()
  await assert.rejects(sleeping, { code: '57014' })
}

async function main() {
  const links = await crowd()
  for (const scene of [cursors, copies, types, listens, cancels]) {
    const sql = connect()
    await scene(sql)
    await sql.end()
  }
  console.log(JSON.stringify({ links }))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
