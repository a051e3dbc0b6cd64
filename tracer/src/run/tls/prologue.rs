//! Where at the beginning of an x86-64 function a breakpoint is cheap.
//!
//! The kernel executes the instruction under a breakpoint itself where it can: a push, a nop, jumps and
//! calls. Any other is executed elsewhere by single stepping, which takes a second trap. So the
//! breakpoint goes to the first cheap instruction at which the arguments are still in their registers
//! and the stack pointer still points to the return address, which a uretprobe replaces.
//!
//! Only instructions that compilers begin functions with are known. Behind one that is not, nothing is
//! said: the function's first instruction is right whatever it is.

/// What the beginning of a function says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prologue {
    /// Bytes from the beginning to the first cheap instruction at which arguments and stack are as they
    /// were at the call.
    pub(super) cheap_at: Option<u64>,
    /// Where the first call goes, relative to the function, when the arguments in the first two
    /// registers are still there.
    pub(super) calls: Option<i64>,
}

/// One instruction, as far as it is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It changes neither the stack pointer nor a register with an argument.
    Harmless,
    /// The kernel executes it, and it goes on behind it unless it jumps.
    Push,
    Nop,
    ConditionalJump,
    /// It goes on there.
    Jump,
    /// With the distance.
    Call(i32),
    /// The stack pointer is another one behind it.
    MovesStack,
    /// The third or fourth argument is another one behind it.
    ChangesLater,
}

pub(super) fn read(code: &[u8]) -> Prologue {
    let mut found = Prologue::default();
    let mut at = 0;
    let mut as_called = true;
    while let Some((len, what)) = code.get(at..).and_then(instruction) {
        if as_called
            && found.cheap_at.is_none()
            && matches!(
                what,
                What::Push | What::Nop | What::ConditionalJump | What::Jump | What::Call(_)
            )
        {
            found.cheap_at = u64::try_from(at).ok();
        }
        match what {
            What::Harmless | What::Nop | What::ConditionalJump => {}
            What::Push | What::MovesStack | What::ChangesLater => as_called = false,
            What::Jump => break,
            What::Call(distance) => {
                let behind = i64::try_from(at + len).unwrap_or(i64::MAX);
                found.calls = Some(behind.saturating_add(distance.into()));
                break;
            }
        }
        at += len;
    }
    found
}

/// Registers by number: rsp is 4; arguments come in rdi, rsi, rdx, rcx, which are 7, 6, 2 and 1.
const STACK: u8 = 4;
const FIRST_ARGUMENTS: [u8; 2] = [7, 6];
const LATER_ARGUMENTS: [u8; 2] = [2, 1];

/// What a write to a register amounts to; `None` where the walk must end.
fn writes(register: u8) -> Option<What> {
    match register {
        register if FIRST_ARGUMENTS.contains(&register) => None,
        register if LATER_ARGUMENTS.contains(&register) => Some(What::ChangesLater),
        STACK => Some(What::MovesStack),
        _ => Some(What::Harmless),
    }
}

/// Length and meaning of the instruction at the beginning of `code`; `None` for one that is not known.
fn instruction(code: &[u8]) -> Option<(usize, What)> {
    let found = match code {
        // endbr64
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => (4, What::Harmless),
        [0x90, ..] => (1, What::Nop),
        // push
        [0x50..=0x57, ..] => (1, What::Push),
        [0x41, 0x50..=0x57, ..] => (2, What::Push),
        // jcc, jmp, call
        [0x70..=0x7f, ..] => (2, What::ConditionalJump),
        [0x0f, 0x80..=0x8f, ..] => (6, What::ConditionalJump),
        [0xeb, ..] => (2, What::Jump),
        [0xe9, ..] => (5, What::Jump),
        [0xe8, a, b, c, d, ..] => (5, What::Call(i32::from_le_bytes([*a, *b, *c, *d]))),
        // mov rbp, rsp
        [0x48, 0x89, 0xe5, ..] => (3, What::Harmless),
        // mov from rsp to another register
        [0x48, 0x89, to @ 0xe0..=0xe7, ..] => (3, writes(to & 7)?),
        // sub rsp, number
        [0x48, 0x83, 0xec, ..] => (4, What::MovesStack),
        [0x48, 0x81, 0xec, ..] => (7, What::MovesStack),
        // test between registers, cmp between registers
        [0x48 | 0x4d, 0x85 | 0x39, 0xc0..=0xff, ..] => (3, What::Harmless),
        [0x85 | 0x39, 0xc0..=0xff, ..] => (2, What::Harmless),
        // xor of a register with itself
        [0x31, of @ (0xc0 | 0xc9 | 0xd2 | 0xdb | 0xed | 0xf6 | 0xff), ..] => (2, writes(of & 7)?),
        // mov of a number to a register
        [to @ 0xb8..=0xbf, ..] => (5, writes(to & 7)?),
        // the stack's guard: mov rax, fs:[number]; mov [rsp + number], rax
        [0x64, 0x48, 0x8b, 0x04, 0x25, ..] => (9, What::Harmless),
        [0x48, 0x89, 0x44, 0x24, ..] => (5, What::Harmless),
        // movsxd rdx, edx; mov edx, edx
        [0x48, 0x63, 0xd2, ..] => (3, What::ChangesLater),
        [0x89, 0xd2, ..] => (2, What::ChangesLater),
        // cmp qword ptr [rdi + number], number
        [0x48, 0x83, 0x7f, ..] => (5, What::Harmless),
        _ => return None,
    };
    (found.0 <= code.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, cheap_at: Option<u64>, calls: Option<i64>) {
        let code: Vec<u8> =
            code.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert_eq!(read(&code), Prologue { cheap_at, calls }, "{code:02x?}");
    }

    #[test]
    fn beginnings_of_real_functions() {
        // SSL_write of Node 20: push rbp; mov rbp, rsp; push r14.
        check("55 48 89 e5 41 56 41 55 41 54 48 83 ec 48 85 d2", Some(0), None);
        // SSL_write_ex of Node 24: test rdi, rdi; je; push rbp.
        check("48 85 ff 0f 84 9f 01 00 00 55 48 89 e5", Some(3), None);
        // The same of a build with -fcf-protection.
        check("f3 0f 1e fa 55 48 89 e5", Some(4), None);
        // SSL_write of Debian's libssl 3.0: sub rsp, 24; the guard; test edx, edx; js; mov rcx, rsp;
        // movsxd rdx, edx; call.
        check(
            "48 83 ec 18 64 48 8b 04 25 28 00 00 00 48 89 44 24 08 31 c0 85 d2 78 2f 48 89 e1 \
             48 63 d2 e8 fd fb ff ff 85 c0",
            None,
            Some(0x355a0 - 0x35980),
        );
        // SSL_write_ex there: sub rsp, 8; call.
        check("48 83 ec 08 e8 87 fb ff ff", None, Some(0x355a0 - 0x35a10));
        // SSL_free there: test rdi, rdi; je.
        check("48 85 ff 0f 84 97 03 00 00 41 55", Some(3), None);
    }

    #[test]
    fn what_is_not_known_ends_the_walk() {
        // mov rdi, rsi; push rbp
        check("48 89 f7 55", None, None);
        // xor edi, edi; call
        check("31 ff e8 00 00 00 00", None, None);
        // sub rsp, 8; jmp
        check("48 83 ec 08 eb 10 e8 00 00 00 00", None, None);
        check("", None, None);
        check("e8 00", None, None);
        check("48 83", None, None);
    }

    #[test]
    fn every_cut_is_read_without_a_panic() {
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x18, 0x64, 0x48, 0x8b, 0x04, 0x25];
        for len in 0..=code.len() {
            read(&code[..len]);
        }
        for byte in 0..=u8::MAX {
            for next in 0..=u8::MAX {
                read(&[byte, next]);
            }
        }
    }
}
