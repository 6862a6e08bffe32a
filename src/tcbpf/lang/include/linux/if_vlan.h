/* VLAN tags. Source: IEEE 802.1Q. */
#ifndef TCBPF_LINUX_IF_VLAN_H
#define TCBPF_LINUX_IF_VLAN_H
#define _LINUX_IF_VLAN_H_
#define _UAPI_LINUX_IF_VLAN_H_

#include <linux/types.h>

#define VLAN_PRIO_MASK 0xe000
#define VLAN_PRIO_SHIFT 13
#define VLAN_CFI_MASK 0x1000
#define VLAN_VID_MASK 0x0fff
#define VLAN_N_VID 4096
#define VLAN_HLEN 4

#endif
