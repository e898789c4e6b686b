"""
No I/O: the Lua scripts of slot leases: ``SlotLedger`` within Redis, where no other call comes between.

The ledger's hash has ``server``, ``epoch``, ``opens_at`` (0: it is open), ``complete_at``, ``joins`` and ``orders``.
Each borrower is ``serial seen until number term epoch``. A run's hash has ``h <borrower>``, which is ``term slots``,
``n <borrower>``, which is ``term order slots until``, and maybe ``born``, the server that it is as new as. The term is
the number of the borrower's last full call: what was written in another one counts no more, nor does what is of one
that is gone, so nothing has to be cleaned up.
"""

from __future__ import annotations

MOMENT = """
local now, server, age_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if server == '' then
    local info = redis.call('INFO', 'server')
    server = info:match('run_id:(%w+)')
    age_ms = tonumber(info:match('uptime_in_seconds:(%d+)')) * 1000
end
"""

SETTLE = """
local lease_ms, need_ms, keep_ms, channel = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local name, number, epoch, seen = ARGV[8], tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11])
local is_full, complete_in_ms, knows = ARGV[12] == '1', tonumber(ARGV[13]), cjson.decode(ARGV[14])
local FIRST_CLAIM, CLAIM_WORDS, FIRST_RUN = 15, 5, 5
local YOUNG, NEWBORN = 1, 2

local function digits(value) return string.format('%.0f', value) end

local borrowers = {}
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
    local serial, knows_up_to, till, last, term, of_epoch =
        found[i + 1]:match('^(%d+) (%d+) (%d+) (%d+) (%d+) (%S*)$')
    borrowers[found[i]] = {
        serial = tonumber(serial), seen = tonumber(knows_up_to), till = tonumber(till),
        number = tonumber(last), term = term, epoch = of_epoch
    }
end
local function write(one)
    local it = borrowers[one]
    redis.call('HSET', KEYS[2], one, table.concat(
        {digits(it.serial), digits(it.seen), digits(it.till), digits(it.number), it.term, it.epoch}, ' '))
end

local ledger = {joins = '0', orders = '0'}
found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do ledger[found[i]] = found[i + 1] end
if ledger.server ~= server then
    local is_known, wait_ms = next(borrowers) ~= nil, math.max(0, lease_ms - age_ms)
    ledger.complete_at = is_known and ledger.opens_at == '0' and digits(now) or ''
    redis.call('DEL', KEYS[3])
    if is_known then
        wait_ms = lease_ms
        for other, it in pairs(borrowers) do
            redis.call('SADD', KEYS[3], other)
            it.till = now + lease_ms
            write(other)
        end
    end
    ledger.server, ledger.epoch, ledger.opens_at = server, server .. '/' .. digits(now), digits(now + wait_ms)
end
for other, it in pairs(borrowers) do
    if it.till <= now then
        redis.call('HDEL', KEYS[2], other)
        borrowers[other] = nil
    end
end
local function keep()
    for field, value in pairs(ledger) do redis.call('HSET', KEYS[1], field, value) end
    for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], keep_ms) end
end

local me = borrowers[name]
if me and number <= me.number then keep() return {'stale'} end
local is_known = me and me.epoch == ledger.epoch and epoch == ledger.epoch
if not is_known and not is_full then keep() return {'unknown'} end
if not me then
    ledger.joins = digits(ledger.joins + 1)
    me = {serial = tonumber(ledger.joins), seen = tonumber(ledger.joins), term = '0'}
    for other in pairs(borrowers) do redis.call('PUBLISH', channel .. other, 'joined') end
    borrowers[name] = me
end
if is_full then
    me.term = digits(number)
    if complete_in_ms then
        ledger.complete_at = digits(math.min(tonumber(ledger.complete_at) or math.huge, now + complete_in_ms))
    end
    for _, other in ipairs(knows) do
        if redis.call('SISMEMBER', KEYS[4], other) == 0 then redis.call('SADD', KEYS[3], other) end
    end
end
if epoch == ledger.epoch then me.seen = math.max(me.seen, seen) end
me.number, me.till, me.epoch = number, now + lease_ms, ledger.epoch
write(name)

for _, other in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    if borrowers[other] and borrowers[other].epoch == ledger.epoch then redis.call('SREM', KEYS[3], other) end
end
local is_told = redis.call('SCARD', KEYS[3]) == 0
local is_open = ledger.opens_at == '0' or now >= tonumber(ledger.opens_at)
    or (now >= (tonumber(ledger.complete_at) or math.huge) and is_told)
if is_open then
    ledger.opens_at = '0'
    redis.call('DEL', KEYS[3])
end

local may_borrow = {}
for one, of_one in pairs(borrowers) do
    may_borrow[one] = true
    for _, of_other in pairs(borrowers) do
        if of_other.serial < of_one.serial and of_other.seen < of_one.serial then may_borrow[one] = false end
    end
end

local function settle_run(key, run_id, limit, held, needs, likes, age)
    local holds, waiting, mine, others = {}, {}, nil, 0
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
        local kind, other = fields[i]:match('^(%a) (.*)$')
        local term, first, count, till = fields[i + 1]:match('^(%d+) (%d+) ?(%d*) ?(%d*)$')
        local of_other = borrowers[other or '']
        if fields[i] == 'born' then
            if fields[i + 1] == server then age = NEWBORN end
        elseif not of_other or of_other.term ~= term or (kind == 'n' and tonumber(till) <= now) then
            redis.call('HDEL', key, fields[i])
        elseif kind == 'h' then
            if other ~= name then
                holds[other] = tonumber(first)
                others = others + holds[other]
            end
        elseif other == name then
            mine = tonumber(first)
        elseif may_borrow[other] then
            waiting[#waiting + 1] = {order = tonumber(first), name = other, count = tonumber(count)}
        end
    end
    table.sort(waiting, function(one, other) return one.order < other.order end)
    local earlier, free = 0, 0
    if is_open or age == NEWBORN or (age == YOUNG and is_told) then free = math.max(0, limit - held - others) end
    for _, one in ipairs(waiting) do one.unmet = math.max(0, one.count - (holds[one.name] or 0)) end
    redis.call('HDEL', key, 'n ' .. name)
    if needs > held then
        if not mine then
            mine = ledger.orders + 1
            ledger.orders = digits(mine)
        end
        for _, one in ipairs(waiting) do
            if one.order < mine then earlier = earlier + one.unmet end
        end
        if may_borrow[name] then
            local granted = math.max(0, math.min(needs - held, free - earlier))
            held, free = held + granted, free - granted
        end
        if needs > held then
            redis.call('HSET', key, 'n ' .. name,
                table.concat({me.term, digits(mine), digits(needs), digits(now + need_ms)}, ' '))
        end
    end
    local unmet = 0
    for _, one in ipairs(waiting) do
        local granted = math.min(one.unmet, free)
        if granted > 0 then
            holds[one.name] = (holds[one.name] or 0) + granted
            one.unmet, free, others = one.unmet - granted, free - granted, others + granted
            local of_one = borrowers[one.name]
            redis.call('HSET', key, 'h ' .. one.name, of_one.term .. ' ' .. digits(holds[one.name]))
            one.granted = granted
        end
        if one.unmet == 0 then redis.call('HDEL', key, 'n ' .. one.name) end
        unmet = unmet + one.unmet
    end
    for _, one in ipairs(waiting) do
        if one.granted then
            redis.call('PUBLISH', channel .. one.name, table.concat({'granted', run_id, digits(one.granted),
                digits(borrowers[one.name].number), digits(unmet - one.unmet)}, ' '))
        end
    end
    if likes > held and may_borrow[name] then held = held + math.min(likes - held, free) end
    if needs > held then
        for other in pairs(holds) do
            redis.call('PUBLISH', channel .. other, table.concat({'wanted', run_id, digits(needs - held)}, ' '))
        end
    end
    if held > 0 then
        redis.call('HSET', key, 'h ' .. name, me.term .. ' ' .. digits(held))
    else
        redis.call('HDEL', key, 'h ' .. name)
    end
    redis.call('PEXPIRE', key, keep_ms)
    return held, others, unmet
end

local leases = {}
for i = FIRST_RUN, #KEYS do
    local at = FIRST_CLAIM + (i - FIRST_RUN) * (CLAIM_WORDS + 1)
    local slots, others, unmet = settle_run(
        KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]),
        tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]))
    leases[#leases + 1], leases[#leases + 2], leases[#leases + 3] = slots, others, unmet
end
keep()
local names = redis.call('SMEMBERS', KEYS[3])
for other in pairs(borrowers) do names[#names + 1] = other end
local opens_in_ms = is_open and 0 or tonumber(ledger.opens_at) - now
return {'done', ledger.epoch, tonumber(ledger.joins), opens_in_ms, names, leases}
"""

BORN = """
local function is_born(run, ttl_ms)
    redis.call('HSET', run, 'born', redis.call('INFO', 'server'):match('run_id:(%w+)'))
    redis.call('PEXPIRE', run, ttl_ms)
end
"""

WITHDRAW = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
"""

HOLDERS = """
local lease_ms, run = tonumber(ARGV[4]), KEYS[3]
local borrowers, holders, has_borrowers = {}, {}, false
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
    local till, term = found[i + 1]:match('^%d+ %d+ (%d+) %d+ (%d+) %S*$')
    if tonumber(till) > now then
        borrowers[found[i]] = term
        has_borrowers = true
    end
end
local last, opens_at = unpack(redis.call('HMGET', KEYS[1], 'server', 'opens_at'))
local is_open
if last ~= server then
    is_open = not has_borrowers and age_ms >= lease_ms
else
    is_open = opens_at == '0' or now >= tonumber(opens_at)
end
if not is_open and redis.call('HGET', run, 'born') ~= server then return {'unknown'} end
found = redis.call('HGETALL', run)
for i = 1, #found, 2 do
    local kind, other = found[i]:match('^(%a) (.*)$')
    if kind == 'h' and borrowers[other] and borrowers[other] == found[i + 1]:match('^(%d+) ') then
        holders[#holders + 1] = other
    end
end
return {'known', unpack(holders)}
"""
