/* The runtime under random use, with every buffer against an unreadable page and every answer compared with a slow model.
 *
 * Built with AddressSanitizer and UndefinedBehaviorSanitizer where the compiler has them, else with trapping UBSan alone; the
 * guard pages are there either way. Usage: stress SEED ROUNDS. Prints "ok" and what it did; any fault kills it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#undef MAP_STACK                                      /* mmap's, not the map type */

#include "runtime.c"

static u64 state;

static u32 any(u32 below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (u32)((state >> 11) % below) : (u32)(state >> 11);
}

#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

/* --- memory whose end is the end: a byte behind it faults ------------------------------------------------------------------- */

struct fence { u8 *at, *pages; size_t size, room; };

static struct fence fence(size_t size)
{
    size_t whole = (size + 4095) / 4096 * 4096;
    u8 *pages = mmap(NULL, whole + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(pages != MAP_FAILED);
    CHECK(!mprotect(pages + whole, 4096, PROT_NONE));
    return (struct fence){pages + whole - size, pages, whole + 4096, size};
}

static void drop(struct fence *f) { munmap(f->pages, f->size); }

static struct tcbpf_env env_of(u64 seed)
{
    struct tcbpf_env env = {.clock = 1, .owner = 7, .random = {seed, 2, 3, 4}};

    return env;
}

/* --- maps against models ------------------------------------------------------------------------------------------------------ */

enum { KEYS = 40, VALUE = 12 };

struct model { u8 present[KEYS]; u32 value[KEYS]; u32 count; };

static struct tcbpf_map *map_of(struct fence *f, struct tcbpf_shape s)
{
    s64 size = tcbpf_map_plan(&s);

    CHECK(size > 0);
    *f = fence((size_t)size);
    struct tcbpf_map *map = (void *)f->at;
    map->magic = TCBPF_MAP_MAGIC;
    map->s = s;
    map->seed = any(0);
    return map;
}

static struct tcbpf_map *map_make(struct fence *f, u32 type, u32 key_size, u32 value_size, u32 entries, u32 cpus)
{
    return map_of(f, (struct tcbpf_shape){.type = type, .key_size = key_size, .value_size = value_size, .max_entries = entries, .cpus = cpus});
}

static void hash_stress(u32 type, u32 rounds)
{
    struct tcbpf_env env = env_of(state);
    u32 key_size = 1 + any(40), entries = 1 + any(KEYS), cpus = 1 + any(3), stride;
    struct model m = {{0}, {0}, 0};
    struct fence f, key_f = fence(key_size), value_f;
    struct tcbpf_map *map = map_make(&f, type, key_size, VALUE, entries, cpus);
    int lru = is_lru(&map->s), per_cpu = is_per_cpu(&map->s);

    stride = map->s.value_stride * (per_cpu ? cpus : 1);
    value_f = fence(per_cpu ? stride : VALUE);
    for (u32 i = 0; i < rounds; i++) {
        u32 k = any(KEYS), flags = any(4), v = any(0);
        u64 err;
        u8 *found;

        memset(key_f.at, 0, key_size);
        key_f.at[0] = (u8)k;
        memset(value_f.at, (int)(v & 0xff), per_cpu ? stride : VALUE);
        switch (any(4)) {
        case 0:
        case 1:
            err = any(2) ? tcbpf_map_update(&env, map, &map->s, key_f.at, value_f.at, flags)
                         : (u64)tcbpf_user_update(&env, map, key_f.at, value_f.at, flags);
            if (flags > 2)
                CHECK(err == ERR(EINVAL));
            else if (m.present[k] && flags == 1)
                CHECK(lru || err == ERR(EEXIST));
            else if (!m.present[k] && flags == 2)
                CHECK(err == ERR(ENOENT));
            else if (!m.present[k] && m.count == entries && !lru)
                CHECK(err == ERR(E2BIG));
            else
                CHECK(lru || !err);
            if (!err) {
                m.count += !m.present[k];
                m.present[k] = 1;
                m.value[k] = v & 0xff;
            }
            break;
        case 2:
            err = tcbpf_map_delete(&env, map, &map->s, key_f.at);
            CHECK(lru || err == (m.present[k] ? 0 : ERR(ENOENT)));
            m.count -= m.present[k];
            m.present[k] = 0;
            break;
        default:
            found = tcbpf_map_lookup(&env, map, &map->s, key_f.at);
            CHECK(lru || !!found == m.present[k]);
            CHECK(!found || (m.present[k] && found[0] == m.value[k] && found[VALUE - 1] == m.value[k]));
        }
        CHECK(lru ? map->count <= entries : map->count == m.count);
        if (!any(50))
            hash_repair(map);
    }
    u32 seen = 0;
    for (s64 err = tcbpf_user_next_key(&env, map, NULL, key_f.at); !err; seen++)
        err = tcbpf_user_next_key(&env, map, key_f.at, key_f.at);
    CHECK(seen == map->count);
    drop(&f);
    drop(&key_f);
    drop(&value_f);
}

/* Prefixes of up to 16 bits, the longest found by trying all. */
static void lpm_stress(u32 rounds)
{
    enum { N = 64 };
    struct tcbpf_env env = env_of(state);
    struct { u32 bits; u8 data[2]; u32 value, used; } m[N] = {{0}};
    struct fence f, key_f = fence(6), value_f = fence(4);
    struct tcbpf_map *map = map_make(&f, MAP_LPM_TRIE, 6, 4, N, 1);
    u32 count = 0;

    for (u32 i = 0; i < rounds; i++) {
        u32 bits = any(17), data = any(16) << 12 | any(2) << 8 | any(4), op = any(4), v = any(0), at = N, best = N;
        u32 mask = bits ? 0xffffu << (16 - bits) & 0xffff : 0, want = op == 3 ? data : data & mask;
        u8 *found;

        store32(key_f.at, op == 3 ? 16 : bits);
        key_f.at[4] = (u8)(want >> 8);
        key_f.at[5] = (u8)want;
        store32(value_f.at, v);
        for (u32 j = 0; j < N; j++) {
            u32 stored = (u32)m[j].data[0] << 8 | m[j].data[1], m_mask = m[j].bits ? 0xffffu << (16 - m[j].bits) & 0xffff : 0;

            if (m[j].used && m[j].bits == bits && stored == want)
                at = j;
            if (m[j].used && (want & m_mask) == stored && (best == N || m[j].bits > m[best].bits))
                best = j;
        }
        if (op == 3) {
            found = tcbpf_map_lookup(&env, map, &map->s, key_f.at);
            CHECK(best == N ? !found : found && load32(found) == m[best].value);
        } else if (op == 2) {
            CHECK(tcbpf_map_delete(&env, map, &map->s, key_f.at) == (at == N ? ERR(ENOENT) : 0));
            if (at < N) {
                m[at].used = 0;
                count--;
            }
        } else {
            u64 err = tcbpf_map_update(&env, map, &map->s, key_f.at, value_f.at, 0);

            CHECK(err == (at == N && count == N ? ERR(ENOSPC) : 0));
            for (u32 j = 0; j < N && at == N && !err; j++)
                if (!m[j].used) {
                    m[j].used = 1;
                    m[j].bits = bits;
                    m[j].data[0] = (u8)(want >> 8);
                    m[j].data[1] = (u8)want;
                    at = j;
                    count++;
                }
            if (!err)
                m[at].value = v;
        }
        CHECK(map->count == count);
        if (!any(50))
            lpm_repair(map);
    }
    drop(&f);
    drop(&key_f);
    drop(&value_f);
}

static void queue_stress(u32 type, u32 rounds)
{
    struct tcbpf_env env = env_of(state);
    u32 entries = 1 + any(9), have = 0, ring[16], v;
    struct fence f, value_f = fence(4);
    struct tcbpf_map *map = map_make(&f, type, 0, 4, entries, 1);

    for (u32 i = 0; i < rounds; i++) {
        u64 err;

        store32(value_f.at, v = any(0));
        if (any(2)) {
            u32 force = any(2) * 2;

            err = tcbpf_helper_map_push_elem(&env, (u64)map, (u64)value_f.at, force, 0, 0);
            CHECK(err == (have == entries && !force ? ERR(E2BIG) : 0));
            if (!err && have == entries) {
                memmove(ring, ring + 1, sizeof(ring) - 4);
                have--;
            }
            if (!err)
                ring[have++] = v;
        } else {
            err = tcbpf_helper_map_pop_elem(&env, (u64)map, (u64)value_f.at, 0, 0, 0);
            CHECK(err == (have ? 0 : ERR(ENOENT)));
            CHECK(load32(value_f.at) == (have ? ring[type == MAP_STACK ? have - 1 : 0] : 0));
            if (have && type == MAP_QUEUE)
                memmove(ring, ring + 1, sizeof(ring) - 4);
            have -= have != 0;
        }
    }
    drop(&f);
    drop(&value_f);
}

/* What was pushed is found, always; of what was not, little. */
static void bloom_stress(u32 rounds)
{
    struct tcbpf_env env = env_of(state);
    u32 size = 4 + any(30), entries = 64, n = rounds < entries ? rounds : entries, false_positives = 0;
    struct fence f, value_f = fence(size);
    struct tcbpf_map *map = map_of(&f, (struct tcbpf_shape){.type = MAP_BLOOM_FILTER, .value_size = size, .max_entries = entries,
                                                            .cpus = 1, .hashes = 3 + any(BLOOM_MAX_HASHES - 2)});

    memset(value_f.at, 0, size);
    for (u32 i = 0; i < n; i++) {
        store32(value_f.at, i * 0x9e3779b1u);
        CHECK(tcbpf_helper_map_push_elem(&env, (u64)map, (u64)value_f.at, 0, 0, 0) == 0);
    }
    for (u32 i = 0; i < 3 * n; i++) {
        u64 said;

        store32(value_f.at, i * 0x9e3779b1u);
        said = any(2) ? tcbpf_helper_map_peek_elem(&env, (u64)map, (u64)value_f.at, 0, 0, 0)
                      : (u64)tcbpf_user_lookup(&env, map, NULL, value_f.at);
        CHECK(said == 0 || (i >= n && said == ERR(ENOENT)));
        false_positives += i >= n && !said;
    }
    CHECK(false_positives <= n);
    CHECK(tcbpf_helper_map_push_elem(&env, (u64)map, (u64)value_f.at, 1, 0, 0) == ERR(EINVAL));
    drop(&f);
    drop(&value_f);
}

/* --- packets -------------------------------------------------------------------------------------------------------------------- */

/* One helper with arguments of its kind; memory arguments have just the size that is named. */
static void any_helper(struct tcbpf_env *env, struct tcbpf_skb *skb)
{
    static const u32 sizes[] = {0, 1, 4, 8, 20, 22, 24, 28, 40, 44, 64, 255, 1000};
    u32 size = sizes[any(sizeof(sizes) / sizeof(*sizes))], at = any(8) ? any(skb->u.len + 20) : any(0);
    u64 flags = any(3) ? any(4) : (u64)1 << any(64), ctx = (u64)skb, before = env->depth;
    struct fence f = fence(size ? size : 1);
    u64 memory = (u64)f.at;

    memset(f.at, (int)any(256), size);
    switch (any(22)) {
    case 0: tcbpf_helper_skb_store_bytes(env, ctx, at, memory, size, flags); break;
    case 1: tcbpf_helper_skb_load_bytes(env, ctx, at, memory, size, 0); break;
    case 2: tcbpf_helper_skb_load_bytes_relative(env, ctx, at, memory, size, any(3)); break;
    case 3: tcbpf_helper_l3_csum_replace(env, ctx, at, any(2) ? 0 : any(0), any(0), any(6)); break;
    case 4: tcbpf_helper_l4_csum_replace(env, ctx, at, any(2) ? 0 : any(0), any(0), any(256)); break;
    case 5: tcbpf_helper_csum_diff(env, memory, size, memory, size, any(0)); break;
    case 6: tcbpf_helper_skb_vlan_push(env, ctx, any(2) ? 0x81 : 0xa888, any(0), 0, 0); break;
    case 7: tcbpf_helper_skb_vlan_pop(env, ctx, 0, 0, 0, 0); break;
    case 8: tcbpf_helper_skb_change_proto(env, ctx, any(2) ? 8 : 0xdd86, any(8) == 0, 0, 0); break;
    case 9: tcbpf_helper_skb_change_tail(env, ctx, any(3) ? any(2000) : any(20000), 0, 0, 0); break;
    case 10: tcbpf_helper_skb_change_head(env, ctx, any(4) ? any(64) : any(20000), 0, 0, 0); break;
    case 11: tcbpf_helper_skb_adjust_room(env, ctx, any(4) ? any(200) - 100 : any(0), any(3), any(512) | (u64)any(40) << 56, 0); break;
    case 12: tcbpf_helper_skb_pull_data(env, ctx, at, 0, 0, 0); break;
    case 13: tcbpf_helper_get_hash_recalc(env, ctx, 0, 0, 0, 0); break;
    case 14: tcbpf_helper_skb_set_tunnel_key(env, ctx, memory, size, any(32), 0); break;
    case 15: tcbpf_helper_skb_get_tunnel_key(env, ctx, memory, size, any(32), 0); break;
    case 16: tcbpf_helper_skb_set_tunnel_opt(env, ctx, memory, size, 0, 0); break;
    case 17: tcbpf_helper_skb_get_tunnel_opt(env, ctx, memory, size, 0, 0); break;
    case 18: tcbpf_helper_skb_ecn_set_ce(env, ctx, 0, 0, 0, 0); break;
    case 19: tcbpf_helper_clone_redirect(env, ctx, 1 + any(5), any(2), 0, 0); break;
    case 20: tcbpf_helper_trace_printk(env, memory, size, any(0), memory, any(0)); break;
    default: {
        u64 value;
        tcbpf_ld_abs(env, skb, (s32)(any(4) ? at : 0xffe00000u + any(1 << 21)), 1u << any(3), &value);
    }
    }
    CHECK(env->depth == before);
    CHECK(skb->head <= skb->data && skb->data <= skb->data_end && skb->data_end <= skb->end);
    CHECK(skb->u.len == (u64)(skb->data_end - skb->data) && skb->data_meta == skb->data);
    drop(&f);
}

static u32 touched;

static void touch(const struct tcbpf_skb *skb)
{
    for (const u8 *at = skb->data; at < skb->data_end; at++)
        touched += *at;
}

/* A program: looks at every byte, does something, decides. */
static u64 any_program(void *ctx, struct tcbpf_env *env, struct tcbpf_map *const *maps)
{
    touch(ctx);
    for (u32 n = any(4); n; n--)
        any_helper(env, ctx);
    touch(ctx);
    if (!any(3))
        return tcbpf_helper_redirect(env, 1 + any(5), any(2), 0, 0, 0);
    return any(5) ? any(9) - 1 : any(0);
}

static void packet_fill(u8 *at, u32 len)
{
    static const u8 heads[][16] = {{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0, 0x45, 0}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0},
                                   {0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0x81, 0, 0, 5}, {0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 4, 0xff, 0xff}};

    for (u32 i = 0; i < len; i++)
        at[i] = (u8)any(256);
    memcpy(at, heads[any(4)], min_u32(len, 16));
}

static void skb_stress(u32 rounds)
{
    struct tcbpf_env env = env_of(state);
    struct fence buffer = fence(TCBPF_BUFFER);

    for (u32 i = 0; i < rounds; i++) {
        u32 len = any(3) ? any(200) : any(60000);
        struct fence data = fence(len ? len : 1);
        struct tcbpf_skb skb = {.spare = buffer.at, .spare_end = buffer.at + TCBPF_BUFFER};

        packet_fill(data.at, len);
        skb.readonly = 1;
        skb.head = data.at;
        skb.end = data.at + len;
        tcbpf_skb_set(&skb, data.at, len, len);
        for (u32 n = any(12); n; n--)
            any_helper(&env, &skb);
        touch(&skb);
        drop(&data);
    }
    drop(&buffer);
}

/* --- captures and devices -------------------------------------------------------------------------------------------------------- */

static void put32(u8 **at, u32 v, int swapped)
{
    store32(*at, swapped ? swap32(v) : v);
    *at += 4;
}

static u32 capture_make(u8 *buf, u32 packets)
{
    int swapped = (int)any(2), ng = (int)any(2);
    u8 *at = buf;

    if (ng) {
        u32 shb[] = {SHB, 28, BYTE_ORDER_MAGIC, 1, 0xffffffff, 0xffffffff, 28}, idb[] = {IDB, 32, 1, 262144, 9 | 1 << 16, any(256), 0, 32};
        for (u32 i = 0; i < 7; i++) put32(&at, shb[i], swapped);
        for (u32 i = 0; i < 8; i++) put32(&at, idb[i], swapped);
    } else {
        u32 head[] = {any(2) ? 0xa1b2c3d4 : 0xa1b23c4d, 2 | 4 << 16, 0, 0, 65535, 1};
        for (u32 i = 0; i < 6; i++) put32(&at, head[i], swapped);
    }
    for (u32 i = 0; i < packets; i++) {
        u32 len = any(100), pad = ng ? (4 - len % 4) % 4 : 0, size = 32 + len + pad;

        if (ng) {
            u32 epb[] = {EPB, size, 0, any(0), any(0), len, len};
            for (u32 j = 0; j < 7; j++) put32(&at, epb[j], swapped);
        } else {
            u32 record[] = {any(0), any(1000000), len, len};
            for (u32 j = 0; j < 4; j++) put32(&at, record[j], swapped);
        }
        packet_fill(at, len + pad);
        at += len + pad;
        if (ng)
            put32(&at, size, swapped);
    }
    return (u32)(at - buf);
}

static void loop_stress(u32 rounds)
{
    static u8 whole[1 << 16];
    struct tcbpf_prog prog = {.fn = any_program};
    struct fence buffer = fence(TCBPF_BUFFER), clones = fence(4 * TCBPF_BUFFER), sinks[6];

    for (u32 j = 0; j < 6; j++)
        sinks[j] = fence(SINK_ROOM + 4096);
    for (u32 i = 0; i < rounds; i++) {
        u32 size = capture_make(whole, any(30)), budget = 400;
        struct tcbpf_env env = env_of(state);
        struct tcbpf_skb skb = {.spare = buffer.at, .spare_end = buffer.at + TCBPF_BUFFER};
        struct tcbpf_sink out[6];
        struct tcbpf_action act[2] = {{.kind = 1 + any(5), .control = (s32)any(9) - 1, .mode = 1 + any(4), .ifindex = 1 + any(5), .prog = &prog},
                                      {.kind = TCBPF_ACT_GACT, .control = any(2) ? (s32)(TC_ACT_JUMP | any(3)) : (s32)(TC_ACT_GOTO_CHAIN | any(3))}};
        struct tcbpf_action *acts[2] = {&act[0], &act[1]};
        struct tcbpf_filter filter[3] = {{.kind = 1, .flags = any(4), .prog = &prog, .pref = 1, .actions = acts, .n_actions = any(3)},
                                         {.kind = 1 + any(2), .prog = &prog, .pref = 2, .actions = acts, .n_actions = any(3)},
                                         {.kind = 1, .prog = &prog, .pref = 2, .protocol = 8}};
        struct tcbpf_filter *filters[3] = {&filter[0], &filter[1], &filter[2]};
        struct tcbpf_chain chain[2] = {{0, 3, filters}, {1, 2, filters}};
        struct tcbpf_chain *chains[2] = {&chain[0], &chain[1]};
        struct tcbpf_hook hook = {.n_chains = 2, .chains = chains};
        struct tcbpf_class klass = {.classid = any(4)}, *classes[1] = {&klass};
        struct tcbpf_dev dev[4] = {{0}}, *devs[4];
        struct tcbpf_net net = {.devs = devs, .n_devs = 4, .buffers = clones.at, .n_buffers = 4};
        struct tcbpf_loop loop = {.out = any(2) ? &out[4] : NULL, .skb = &skb, .budget = 1 + any(40), .writes = any(2), .keep = any(0)};
        struct tcbpf_capture in = {0};
        struct fence file;

        for (u32 j = 0; j < 6; j++) {
            u32 room = j < 4 && any(2) ? any(3000) : SINK_ROOM + 4096;

            out[j] = (struct tcbpf_sink){.buf = sinks[j].at + sinks[j].room - room, .size = room, .format = 1 + any(3),
                                         .snaplen = any(2) * any(200)};
        }
        for (u32 j = 0; j < 4; j++) {
            devs[j] = &dev[j];
            dev[j] = (struct tcbpf_dev){.ifindex = j + 1, .mtu = 1500, .hard_header_len = 14, .flags = any(8) != 0, .kind = 1 + any(4),
                                        .ingress = any(3) ? &hook : NULL, .egress = any(3) ? &hook : NULL, .root = any(3) ? NULL : &hook,
                                        .classes = classes, .n_classes = 1, .peer = &dev[j ^ 1], .netns = any(4) == 0, .tx = &out[j], .rx = &out[j]};
        }
        for (u32 hits = any(3) ? any(6) : 0; hits; hits--)
            if (any(2))
                whole[any(size)] ^= (u8)(1 << any(8));
            else
                store32(whole + any(size / 4) * 4, any(2) ? any(200) : any(200) << 24);
        if (any(2) && size)
            size = any(size);
        file = fence(size ? size : 1);
        memcpy(file.at, whole, size);
        in.base = file.at;
        in.size = in.file_size = size;
        in.window = any(2) * 100;
        loop.in = &in;
        if (tcbpf_capture_open(&in) == TCBPF_MORE)
            for (u32 status = TCBPF_MORE; budget && (status == TCBPF_MORE || status == TCBPF_FULL); budget--) {
                env.net = any(4) ? &net : NULL;
                status = any(2) ? tcbpf_loop_run(&loop, &env, &prog) : tcbpf_loop_device(&loop, &env, &dev[any(4)], any(2));
                CHECK(in.pos <= in.size && net.buffers_used == 0 && env.nested == 0 && env.depth == 0);
                if (status == TCBPF_FULL)
                    for (u32 j = 0; j < 6; j++)
                        out[j].used = 0;
                if (status == TCBPF_FULL)
                    memset(loop.verdicts, 0, sizeof(loop.verdicts));
            }
        drop(&file);
    }
    for (u32 j = 0; j < 6; j++)
        drop(&sinks[j]);
    drop(&buffer);
    drop(&clones);
}

int main(int argc, char **argv)
{
    u32 rounds = argc > 2 ? (u32)atoi(argv[2]) : 1000;

    state = 0x9e3779b97f4a7c15u ^ (argc > 1 ? (u64)atoll(argv[1]) << 17 : 0);
    for (u32 i = 0; i < 8; i++) {
        hash_stress(MAP_HASH, rounds);
        hash_stress(MAP_PERCPU_HASH, rounds);
        hash_stress(MAP_LRU_HASH, rounds);
        hash_stress(MAP_LRU_PERCPU_HASH, rounds);
        lpm_stress(rounds);
        queue_stress(MAP_QUEUE, rounds);
        queue_stress(MAP_STACK, rounds);
        bloom_stress(rounds);
    }
    skb_stress(rounds);
    loop_stress(rounds / 4);
    printf("ok %u rounds, %u\n", rounds, touched);
    return 0;
}
