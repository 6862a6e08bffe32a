/* Records of pcap (micro- and nanoseconds) and pcapng files, in either byte order, from a window of the file. */
#include "../base.h"

enum { PCAP_HEADER = 24, PCAP_RECORD = 16, PCAP_MODIFIED_RECORD = 24 };
#define MAGIC_US 0xa1b2c3d4u
#define MAGIC_NS 0xa1b23c4du
#define MAGIC_MODIFIED 0xa1b2cd34u      /* Kuznetzov's: a record's head goes on with ifindex, protocol and packet type */
enum { LINKTYPE_NULL = 0, LINKTYPE_ENC = 109 };
enum { SHB = 0x0a0d0d0a, IDB = 1, OPB = 2, SPB = 3, EPB = 6, BLOCK_MIN = 12, OPT_TSRESOL = 9, OPT_TSOFFSET = 14 };
#define BYTE_ORDER_MAGIC 0x1a2b3c4du

static ALWAYS u32 field32(const struct tcbpf_capture *c, const u8 *at) { return c->swapped ? swap32(load32(at)) : load32(at); }
static ALWAYS u16 field16(const struct tcbpf_capture *c, const u8 *at) { return c->swapped ? swap16(load16(at)) : load16(at); }

static COLD u32 damaged(struct tcbpf_capture *c, enum tcbpf_damage how)
{
    c->error = how;
    return TCBPF_BAD;
}

/* Fewer bytes than needed at pos: the window ends, or the file does. */
static COLD u32 short_of(const struct tcbpf_capture *c)
{
    if (c->window + c->size < c->file_size)
        return TCBPF_MORE;
    return c->pos == c->size ? TCBPF_END : TCBPF_TRUNCATED;
}

/* NULL and ENC begin with a number in the byte order of the machine that recorded: another order is another link type. */
static u32 link_of(const struct tcbpf_capture *c, u32 linktype)
{
    return linktype | (c->swapped && (linktype == LINKTYPE_NULL || linktype == LINKTYPE_ENC) ? TCBPF_LINK_SWAPPED : 0);
}

static u32 format_of(u32 magic)
{
    return magic == MAGIC_US ? TCBPF_PCAP_US : magic == MAGIC_NS ? TCBPF_PCAP_NS : magic == MAGIC_MODIFIED ? TCBPF_PCAP_MODIFIED : 0;
}

u32 tcbpf_capture_open(struct tcbpf_capture *c)
{
    u32 magic, network;
    u16 major, minor;

    c->pos = c->n_interfaces = c->error = c->swapped = c->format = c->lengths = 0;
    if (c->size < 4)
        return TCBPF_TRUNCATED;
    magic = load32(c->base);
    if (magic == SHB) {
        c->format = TCBPF_PCAPNG;
        return TCBPF_MORE;
    }
    c->format = format_of(magic);
    if (!c->format) {
        c->format = format_of(swap32(magic));
        c->swapped = 1;
    }
    if (!c->format)
        return damaged(c, TCBPF_NO_CAPTURE);
    if (c->size < PCAP_HEADER)
        return TCBPF_TRUNCATED;
    major = field16(c, c->base + 4);
    minor = field16(c, c->base + 6);
    if (!(major == 2 || (major == 543 && !minor)))
        return damaged(c, TCBPF_PCAP_VERSION);
    c->lengths = major == 543 || minor < 3 ? TCBPF_LENGTHS_SWAPPED : minor == 3 ? TCBPF_LENGTHS_EITHER : 0;
    network = field32(c, c->base + 20);
    c->interfaces[0] = (struct tcbpf_interface){.linktype = link_of(c, network & 0xffff), .snaplen = field32(c, c->base + 16)};
    c->n_interfaces = 1;
    c->pos = PCAP_HEADER;
    return TCBPF_MORE;
}

/* --- pcapng ------------------------------------------------------------------------------------------------------------------ */

static void interface_options(struct tcbpf_capture *c, struct tcbpf_interface *i, const u8 *at, const u8 *end)
{
    while (end - at >= 4) {
        u16 code = field16(c, at), len = field16(c, at + 2);

        if (!code || end - at - 4 < len)
            return;
        if (code == OPT_TSRESOL && len >= 1) {
            i->tsresol = at[4];
        } else if (code == OPT_TSOFFSET && len >= 8) {
            u64 v = load64(at + 4);
            i->offset = (s64)(c->swapped ? swap64(v) : v);
        }
        at += 4 + round_up(len, 4);
    }
}

static COLD u32 interface_add(struct tcbpf_capture *c, const u8 *block, u32 size)
{
    struct tcbpf_interface *i = &c->interfaces[c->n_interfaces];

    if (size < 20)
        return damaged(c, TCBPF_BLOCK);
    if (c->n_interfaces == TCBPF_INTERFACES)
        return damaged(c, TCBPF_MANY_INTERFACES);
    *i = (struct tcbpf_interface){.linktype = link_of(c, field16(c, block + 8)), .snaplen = field32(c, block + 12), .tsresol = 6};
    interface_options(c, i, block + 16, block + size - 4);
    c->n_interfaces++;
    return TCBPF_MORE;
}

static COLD u32 section_start(struct tcbpf_capture *c, const u8 *block, u64 left)
{
    if (left < 12)
        return short_of(c);
    if (load32(block + 8) != BYTE_ORDER_MAGIC && load32(block + 8) != swap32(BYTE_ORDER_MAGIC))
        return damaged(c, TCBPF_NO_CAPTURE);
    c->swapped = load32(block + 8) != BYTE_ORDER_MAGIC;
    c->n_interfaces = 0;
    return TCBPF_MORE;
}

static ALWAYS int is_packet(u32 type) { return type == EPB || type == SPB || type == OPB; }
static ALWAYS int is_read(u32 type) { return is_packet(type) || type == IDB || type == SHB; }

/* Where a packet block says that its data lies. */
static ALWAYS u32 packet_block(struct tcbpf_capture *c, struct tcbpf_packet *p, const u8 *block, u32 type, u32 size)
{
    u32 fixed = type == SPB ? 12 : EPB_DATA;

    if (size < fixed + 4)
        return damaged(c, TCBPF_BLOCK);
    p->data = block + fixed;
    p->head = fixed;
    if (type == SPB) {
        p->interface = p->time[0] = p->time[1] = 0;
        p->len = field32(c, block + 8);
        p->caplen = min_u32(p->len, size - fixed - 4);
        if (c->n_interfaces && c->interfaces[0].snaplen)
            p->caplen = min_u32(p->caplen, c->interfaces[0].snaplen);
    } else {
        p->interface = type == EPB ? field32(c, block + 8) : field16(c, block + 8);
        p->time[0] = field32(c, block + 12);
        p->time[1] = field32(c, block + 16);
        p->caplen = field32(c, block + 20);
        p->len = field32(c, block + 24);
    }
    if (p->interface >= c->n_interfaces)
        return damaged(c, TCBPF_NO_INTERFACE);
    if (p->caplen > TCBPF_MAX_CAPLEN || p->caplen > size - fixed - 4)
        return damaged(c, TCBPF_LENGTH);
    return TCBPF_MORE;
}

/* The next packet block; others are read or passed over. `pos` then is behind it. */
static u32 pcapng_next(struct tcbpf_capture *c, struct tcbpf_packet *p)
{
    for (;;) {
        const u8 *block = c->base + c->pos;
        u64 left = c->size - c->pos;
        u32 type, size, status = TCBPF_MORE;

        p->data = NULL;
        if (unlikely(c->pos > c->size || left < 8))
            return short_of(c);
        type = load32(block) == SHB ? SHB : field32(c, block);
        if (unlikely(type == SHB)) {
            status = section_start(c, block, left);
            if (status != TCBPF_MORE || left < 12)
                return status;
        }
        size = field32(c, block + 4);
        if (unlikely(size < BLOCK_MIN || size & 3))
            return damaged(c, TCBPF_BLOCK);
        if (unlikely(left < size)) {
            if (c->window + c->pos + size > c->file_size)
                return TCBPF_TRUNCATED;
            if (!is_read(type))
                c->pos += size;                                   /* beyond the window: nobody needs to hold it */
            return TCBPF_MORE;
        }
        if (unlikely(field32(c, block + size - 4) != size))
            return damaged(c, TCBPF_BLOCK);
        if (is_packet(type))
            status = packet_block(c, p, block, type, size);
        else if (type == IDB)
            status = interface_add(c, block, size);
        if (unlikely(status != TCBPF_MORE))
            return status;
        c->pos += size;
        if (p->data)
            return TCBPF_MORE;
    }
}

/* --- both -------------------------------------------------------------------------------------------------------------------- */

/* Ticks of 10^-n or, with the upper bit set, 2^-n seconds as nanoseconds. */
static u64 ticks_ns(u64 ticks, u32 tsresol)
{
    u32 n = tsresol & 0x7f;

    if (tsresol & 0x80)
        return n < 94 ? (u64)((unsigned __int128)ticks * 1000000000u >> n) : 0;
    for (; n < 9; n++)
        ticks *= 10;
    for (; n > 9 && ticks; n--)
        ticks /= 10;
    return ticks;
}

/* A packet's time of capture; only who needs it pays for the division. */
static u64 packet_ns(const struct tcbpf_capture *c, const struct tcbpf_packet *p)
{
    const struct tcbpf_interface *i = &c->interfaces[p->interface];

    if (c->format != TCBPF_PCAPNG)
        return p->time[0] * (u64)1000000000u + p->time[1] * (u64)(c->format == TCBPF_PCAP_NS ? 1 : 1000);
    return ticks_ns((u64)p->time[0] << 32 | p->time[1], i->tsresol) + (u64)i->offset * 1000000000u;
}

/* Which of a record's lengths is which: versions of pcap before 2.3 have them the other way round, 2.3 now and then. */
static COLD void lengths_old(const struct tcbpf_capture *c, struct tcbpf_packet *p)
{
    u32 caplen = p->caplen;

    if (c->lengths == TCBPF_LENGTHS_EITHER && caplen <= p->len)
        return;
    p->caplen = p->len;
    p->len = caplen;
}

/* The next packet but for its `ns`; TCBPF_MORE with data NULL: the window is used up. */
static ALWAYS u32 capture_next(struct tcbpf_capture *c, struct tcbpf_packet *p)
{
    const u8 *record = c->base + c->pos;
    u64 left = c->size - c->pos;

    if (unlikely(c->format == TCBPF_PCAPNG))
        return pcapng_next(c, p);
    p->data = NULL;
    p->head = c->format == TCBPF_PCAP_MODIFIED ? PCAP_MODIFIED_RECORD : PCAP_RECORD;
    if (unlikely(left < p->head))
        return short_of(c);
    p->caplen = field32(c, record + 8);
    p->len = field32(c, record + 12);
    if (unlikely(c->lengths))
        lengths_old(c, p);
    if (unlikely(p->caplen > TCBPF_MAX_CAPLEN))
        return damaged(c, TCBPF_LENGTH);
    if (unlikely(left - p->head < p->caplen))
        return short_of(c);
    p->time[0] = field32(c, record);
    p->time[1] = field32(c, record + 4);
    p->interface = 0;
    p->data = record + p->head;
    c->pos += p->head + (u64)p->caplen;
    if (unlikely(p->caplen > c->interfaces[0].snaplen - 1u && c->interfaces[0].snaplen - 1u < 0x7fffffff))
        p->caplen = c->interfaces[0].snaplen;                     /* as libpcap: a packet is not longer than the file says */
    return TCBPF_MORE;
}

u32 tcbpf_capture_next(struct tcbpf_capture *c, struct tcbpf_packet *p)
{
    u32 status = capture_next(c, p);

    if (status == TCBPF_MORE && p->data)
        p->ns = packet_ns(c, p);
    return status;
}
