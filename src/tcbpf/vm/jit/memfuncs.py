"""What LLVM calls of its own accord when it copies, fills or compares: machine code here has no C library to call.

Each function is a section of its own, so that linking leaves out what a program does not need. Sixteen bytes at a time; the
last sixteen overlap with what was done before, and are loaded first, so that copying towards lower addresses may overlap.
"""

from __future__ import annotations

NAMES = ("memcpy", "memmove", "memset", "memcmp", "bcmp")

TEXT = """
define ptr @memcpy(ptr %to, ptr %from, i64 %n) #0 section ".text.memcpy" {
  %r = tail call ptr @memmove(ptr %to, ptr %from, i64 %n)
  ret ptr %r
}

define ptr @memmove(ptr %to, ptr %from, i64 %n) #0 section ".text.memmove" {
  %n.16 = sub i64 %n, 16
  %n.8 = sub i64 %n, 8
  %n.4 = sub i64 %n, 4
  %n.1 = sub i64 %n, 1
  %has.16 = icmp uge i64 %n, 16
  br i1 %has.16, label %long, label %short
long:
  %a = ptrtoint ptr %to to i64
  %b = ptrtoint ptr %from to i64
  %distance = sub i64 %a, %b
  %up = icmp ult i64 %distance, %n
  %from.last = getelementptr i8, ptr %from, i64 %n.16
  %to.last = getelementptr i8, ptr %to, i64 %n.16
  %head = load <16 x i8>, ptr %from, align 1
  %tail = load <16 x i8>, ptr %from.last, align 1
  br i1 %up, label %down.loop, label %up.loop
up.loop:
  %i = phi i64 [ 0, %long ], [ %i.next, %up.loop ]
  %up.from = getelementptr i8, ptr %from, i64 %i
  %up.to = getelementptr i8, ptr %to, i64 %i
  %up.v = load <16 x i8>, ptr %up.from, align 1
  store <16 x i8> %up.v, ptr %up.to, align 1
  %i.next = add i64 %i, 16
  %up.more = icmp ult i64 %i.next, %n.16
  br i1 %up.more, label %up.loop, label %up.end
up.end:
  store <16 x i8> %tail, ptr %to.last, align 1
  ret ptr %to
down.loop:
  %j = phi i64 [ %n.16, %long ], [ %j.next, %down.loop ]
  %down.from = getelementptr i8, ptr %from, i64 %j
  %down.to = getelementptr i8, ptr %to, i64 %j
  %down.v = load <16 x i8>, ptr %down.from, align 1
  store <16 x i8> %down.v, ptr %down.to, align 1
  %j.next = sub i64 %j, 16
  %down.more = icmp sgt i64 %j.next, 0
  br i1 %down.more, label %down.loop, label %down.end
down.end:
  store <16 x i8> %head, ptr %to, align 1
  ret ptr %to
short:
  %has.8 = icmp uge i64 %n, 8
  br i1 %has.8, label %eight, label %below.8
eight:
  %from.8 = getelementptr i8, ptr %from, i64 %n.8
  %to.8 = getelementptr i8, ptr %to, i64 %n.8
  %x8 = load i64, ptr %from, align 1
  %y8 = load i64, ptr %from.8, align 1
  store i64 %x8, ptr %to, align 1
  store i64 %y8, ptr %to.8, align 1
  ret ptr %to
below.8:
  %has.4 = icmp uge i64 %n, 4
  br i1 %has.4, label %four, label %below.4
four:
  %from.4 = getelementptr i8, ptr %from, i64 %n.4
  %to.4 = getelementptr i8, ptr %to, i64 %n.4
  %x4 = load i32, ptr %from, align 1
  %y4 = load i32, ptr %from.4, align 1
  store i32 %x4, ptr %to, align 1
  store i32 %y4, ptr %to.4, align 1
  ret ptr %to
below.4:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %few
few:
  %half = lshr i64 %n, 1
  %from.half = getelementptr i8, ptr %from, i64 %half
  %to.half = getelementptr i8, ptr %to, i64 %half
  %from.1 = getelementptr i8, ptr %from, i64 %n.1
  %to.1 = getelementptr i8, ptr %to, i64 %n.1
  %x1 = load i8, ptr %from
  %y1 = load i8, ptr %from.half
  %z1 = load i8, ptr %from.1
  store i8 %x1, ptr %to
  store i8 %y1, ptr %to.half
  store i8 %z1, ptr %to.1
  br label %done
done:
  ret ptr %to
}

define ptr @memset(ptr %to, i32 %c, i64 %n) #0 section ".text.memset" {
  %byte = trunc i32 %c to i8
  %one = insertelement <16 x i8> poison, i8 %byte, i64 0
  %all = shufflevector <16 x i8> %one, <16 x i8> poison, <16 x i32> zeroinitializer
  %n.16 = sub i64 %n, 16
  %has.16 = icmp uge i64 %n, 16
  br i1 %has.16, label %long, label %short
long:
  %i = phi i64 [ 0, %0 ], [ %i.next, %long ]
  %at = getelementptr i8, ptr %to, i64 %i
  store <16 x i8> %all, ptr %at, align 1
  %i.next = add i64 %i, 16
  %more = icmp ult i64 %i.next, %n.16
  br i1 %more, label %long, label %last
last:
  %to.last = getelementptr i8, ptr %to, i64 %n.16
  store <16 x i8> %all, ptr %to.last, align 1
  ret ptr %to
short:
  %k = phi i64 [ 0, %0 ], [ %k.next, %put ]
  %go = icmp ult i64 %k, %n
  br i1 %go, label %put, label %done
put:
  %place = getelementptr i8, ptr %to, i64 %k
  store i8 %byte, ptr %place
  %k.next = add i64 %k, 1
  br label %short
done:
  ret ptr %to
}

define i32 @memcmp(ptr %a, ptr %b, i64 %n) #0 section ".text.memcmp" {
  br label %eights
eights:
  %i = phi i64 [ 0, %0 ], [ %i.next, %same ]
  %i.next = add i64 %i, 8
  %fits = icmp ule i64 %i.next, %n
  br i1 %fits, label %eight, label %ones
eight:
  %a8 = getelementptr i8, ptr %a, i64 %i
  %b8 = getelementptr i8, ptr %b, i64 %i
  %x = load i64, ptr %a8, align 1
  %y = load i64, ptr %b8, align 1
  %equal = icmp eq i64 %x, %y
  br i1 %equal, label %same, label %ones
same:
  br label %eights
ones:
  %k = phi i64 [ %i, %eights ], [ %i, %eight ], [ %k.next, %next ]
  %go = icmp ult i64 %k, %n
  br i1 %go, label %one, label %done
one:
  %a1 = getelementptr i8, ptr %a, i64 %k
  %b1 = getelementptr i8, ptr %b, i64 %k
  %u = load i8, ptr %a1
  %v = load i8, ptr %b1
  %differ = icmp ne i8 %u, %v
  br i1 %differ, label %found, label %next
next:
  %k.next = add i64 %k, 1
  br label %ones
found:
  %p = zext i8 %u to i32
  %q = zext i8 %v to i32
  %r = sub i32 %p, %q
  ret i32 %r
done:
  ret i32 0
}

define i32 @bcmp(ptr %a, ptr %b, i64 %n) #0 section ".text.bcmp" {
  %r = tail call i32 @memcmp(ptr %a, ptr %b, i64 %n)
  ret i32 %r
}

attributes #0 = { nounwind noinline "no-builtins" }
"""
